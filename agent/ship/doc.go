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
//	429, 5xx, no answer             sent again, after a pause that doubles up to 30 s, with jitter
//	413, an answer above 32 MiB     the request is halved; a single record with 413 is a dead letter
//	400, other 4xx of an item       dead letter with the error kept
//	400 "maximum ... shards open"   held: the cluster's state, not the record's fault
//	403, 429 of a cluster block     held: the disk is full or the index read-only
//	401, 403, 404, any other 3xx or 4xx of a request
//	                                held: credentials, rights and templates get fixed
//	no JSON, fewer items, no status sent again; more items than records: held
//
// Held is sent again like the others, and Hold says why in words until an
// answer is good again. Delivery is effectively once: the _id comes from the
// record's place in its file, so what is sent twice is stored once as long as
// the data stream did not roll over in between.
package ship
