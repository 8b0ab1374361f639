// Package store owns the raw samples: the remote-write receiver, the embedded
// time-series database, and PromQL over it behind the Prometheus HTTP API.
//
// It refuses to interpret samples: no rules, no objectives, no minutes. It
// refuses samples more than 90 s ahead of its own clock (R2), broken label
// sets and histograms, and what lies beyond the out-of-order window; each
// refusal is counted by reason and told to the sender with its place.
//
// Limits bound what one cluster, one namespace and one sender of remote write
// may use. New series beyond them are refused for good, and so are the samples of
// a cluster or namespace that is over its rate: the others of the same request
// must not wait for it. What one sender sends too fast, or in too many requests
// at once, is put off by 503 and not looked at, because its sender repeats it.
//
// Samples enter through Receiver (remote write 1.0 and 2.0) or an Appender;
// one that writes the same series again and again looks each up once, by
// DB.Handle. What the receiver knows already it neither validates nor builds
// again: handles are found by the bytes in which a sender spells the labels.
// Each batch passes four steps in this order, and the next begins only when
// the one before succeeded (R24):
//
//	commit to the database → sync of its logs → append hook → acknowledgement
//
// They leave through the hook (each accepted sample once, R1, in the order in
// which the sender wrote them), through Querier (raw reading), and through API
// and Query. What is refused goes to the refused hook first, by source (R6).
//
// OpenSource reads the samples of others, a folder or a URL, and changes
// nothing there.
//
// Start timestamps come back from Querier's iterators through AtST. Tests show
// it for the database version in use after a clean restart (memory snapshot),
// after kill -9 (replay of the log), out of order, and out of a block. The
// database keeps a start timestamp only in chunks of its XOR2 and histogram-ST
// encodings; series written by another program without them answer 0.
//
// A memory snapshot is used only where it was marked after its names were
// durable; otherwise the logs are read.
//
// What a sender repeats after a failed request passes the hook again, because
// only that attempt was acknowledged; an exact repetition of a series' newest
// sample is such a case too and is not told apart. The hook's owner must add
// nothing for a time that it has already seen (R4).
package store
