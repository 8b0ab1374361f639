// Package ledger is the durable book of minutes: what each objective counted,
// minute by minute, with every later correction beside it.
//
// It owns the on-disk format, the chain of batches and what figures were as of
// a batch (docs/counting.md, R21, R22, R24 to R28). It refuses to count and to
// judge: minutes come in from the evaluator in batches, and leave summed with
// their revisions to whoever asks. It never edits: a corrected minute is its
// first booking and the revisions after it.
//
// # Format
//
// One pebble store. Numbers in keys are big-endian, so that keys sort by them;
// a UTC day is 4 bytes (offset by 2^31), a minute of the day 2 bytes, a batch's
// sequence 8 bytes. Every value begins with a version.
//
//	v                              version of the format
//	b seq                          batch: term, time, count, first and last day, hash before, hash
//	e day objective minute         first booking of a minute
//	r day objective minute seq     revision of a minute: signed differences
//	o objective seq                definition of an objective, JSON, from that batch on
//	s objective hash first seq     source of an objective, from that batch on
//	m kind key time                mark, JSON: what derivations must know beside samples
//	l objective                    newest first-booked minute (derived, not in the chain)
//	d                              first day that is still kept (derived, not in the chain)
//
// # Retention
//
// DropBefore removes the e and r of whole days and notes in d the first day that
// stays, in one synced write: after a crash either all is there or nothing. All
// else stays, so that definitions, sources and newest minutes are known and the
// chain of headers is whole. A batch whose first day lies before d can be checked
// by its links alone. What was dropped can't be booked again: it could be neither
// compared with what was there nor corrected.
//
// # Damage
//
// A log that ends in a torn write is cut off there: what was acknowledged was
// synced before that. Damage before the log's last block of 32 KiB is told, and
// the book not opened; within that block it looks like a torn write, and the
// minutes behind it are counted again from raw samples.
//
// # Hash
//
// The hash of a batch is SHA-256 over the hash before it, its header and all of
// its keys and values in the order of the keys, each with its length in front.
// Sealed days (R27) will be keys of their own beside e: the hash of the last
// batch that they replace is in their value, and r stays as it is.
package ledger
