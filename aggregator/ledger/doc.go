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
//	k day objective                sealed day: the first bookings of its minutes, packed
//	r day objective minute seq     revision of a minute: signed differences, and its flags from then on
//	o objective seq                definition of an objective, JSON, from that batch on
//	s objective hash first seq     source of an objective, from that batch on
//	m kind key time                mark, JSON: what derivations must know beside samples
//	h objective day                sums of a sealed day and of all before it (derived, not in the chain)
//	l objective                    newest minute when e were sealed or dropped (derived, not in the chain)
//	d                              first day that is still kept (derived, not in the chain)
//
// # Sealed days
//
// A UTC day is sealed 24 h after its end (R27): its e of an objective become one
// k. Nothing is lost with them: a k holds figures (as a Run), batch, reason and
// author of each minute, so that each e, and with them the hash of each batch,
// can be made again byte for byte, and figures as of a batch stay exact. It names
// the last batch of which it holds a minute, with its hash. Seal proves of each e
// that it comes out of the block as it went in before both are written, in one
// synced write.
//
// What is booked for a sealed day later is an e beside the k, merged in by all
// that read, until the next Seal packs both again. r stay as they are: they are
// added to every sum that holds their minute.
//
// An h holds the sums of its k and of all k of the objective before it, with
// gaps apart, how often each flag is set, the longest gap and the newest batch:
// a range of sealed days is the difference of two h. Only differences count:
// what the first h that is kept begins with depends on what was dropped. Which
// days of an objective have e or r is in memory, 4 bytes each, found at Open by
// leaping from day to day.
//
// # Retention
//
// DropBefore removes the e, k and r of whole days and notes in d the first day
// that stays, in one synced write: after a crash either all is there or nothing.
// The h of these days, which nobody reads any more, go afterwards. All else
// stays, so that definitions, sources and newest minutes are known and the
// chain of headers is whole. A batch whose first day lies before d can be checked
// by its links alone. What was dropped can't be booked again: it could be neither
// compared with what was there nor corrected.
//
// # Followers
//
// Handler sends batches as they were booked, each with all of its entries, those
// of sealed days made again from their blocks: so a follower can prove each by
// its hash before it books it, and seals by itself. Follow copies them. The
// newest batches are sent from memory (8 MiB), older ones are gathered 200,000
// entries at a time by reading the days that they touch. Of batches with days
// that the leader has dropped the links alone are proven.
//
// # Damage
//
// Shortened and damaged tables are errors of those who read them, and of Verify.
// Before a batch is written 64 MiB must be free on the disk: otherwise it is an
// error, nothing is written, and the book goes on when there is space. An error
// of the disk below a write ends writing until a restart: what of that write is
// on the disk only a restart can tell. Reading goes on.
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
// Verify makes all of them again. What it proves: no entry of the days that are
// kept was changed, added or taken away since it was booked, unless all hashes
// from there to the newest were made again: who keeps an older hash elsewhere,
// as a report does, can tell that too.
package ledger
