// Package ship owns the record of a log and the places that records go to: an
// Elasticsearch (or what speaks its _bulk) and files of NDJSON.
//
// Records enter by Destination.Ship, which comes back when each of them has a
// verdict of its own: the destination holds it, or it is a dead letter and the
// dead letters hold it, both synced. Nothing is given up because time passed:
// a destination that is down, full or misconfigured holds the caller, and the
// caller's files are the buffer. The package refuses to read logs, and to know
// where records come from: that is the caller's.
//
// # What an answer of _bulk means
//
//	answer (item or request)        verdict
//	2xx                             stored; with failure_store "used" counted apart as diverted
//	409 on our own _id              stored before, counted apart
//	429, 5xx, no answer             sent again, after a pause that doubles up to 30 s, with jitter,
//	                                or as long as Retry-After says, up to 30 s
//	413, an answer above 32 MiB     the request is halved; a single record with 413 is a dead letter
//	400, other 4xx of an item       dead letter with the error kept
//	400 "maximum ... shards open"   held: the cluster's state, not the record's fault
//	403, 429 of a cluster block     held: the disk is full or the index read-only
//	401, 403, 404, any other 3xx or 4xx of a request
//	                                held: credentials, rights and templates get fixed
//	no JSON, fewer items, no status sent again; more items than records: held
//
// Held is sent again like the others, and Hold says why in words until an
// answer is good again. Ship may be called concurrently: requests under way are
// bounded, by half as many after a 429, a 503 or a time-out, and by one more
// after a run of successes. An address that refuses connections is left alone
// for a minute and more, and its request goes to another one at once.
//
// # Effectively once
//
// The _id comes from the record's place in its file, so what is sent twice is
// stored once in one backing index of a data stream. Across a rollover it would
// be stored twice. So the write indices last seen of each data stream are
// remembered, in the state folder too, and a record whose fate is unknown (no
// answer, a request that ended in 5xx, fewer items than records, or a Record
// that says Uncertain) is looked for there by _mget before it is sent again; the
// user needs the right to read for that. What lands elsewhere all the same is
// looked for once more, and one that stands twice is counted as a duplicate.
// What the server says it did not take (429, 5xx of an item) leaves no doubt.
// Of a stream of which no answer came yet the backing indices are asked for.
// That is not exactly once: only the newest two are looked into.
//
// # Templates
//
// The component templates nines-logs-mappings and nines-logs-settings and the
// index template nines-logs are put before the first records, unless they are
// there with the same version or a newer one. One of these names that is not
// ours holds. The component nines-logs@custom is the user's; servers that
// require all components to exist (OpenSearch) do without it. A server without
// a type of field gets another, and what could not be set up is in Notes.
// Retention and policy hold for data streams that are made from then on.
//
// Seen on real servers: Elasticsearch 8.19.7 and 9.0.0 (distributions without
// most modules), OpenSearch 2.19.0 and 3.4.0. API keys, bearer tokens and ILM
// policies are unproven on a real server: testdata has the requests.
//
// # Dead letters
//
// A line for each record that is refused for good: _id, stream, error, time,
// bytes of the log and the document. The folder is bounded; the oldest file is
// removed first and its letters are counted. Redrive sends them again after a
// repair, file by file.
package ship
