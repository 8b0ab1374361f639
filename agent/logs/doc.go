// Package logs follows the files of logs and hands their lines, as records, to
// a destination of agent/ship. It owns which files there are, where each was
// read to, and the account of every byte. It knows no server: what became of a
// record is a verdict that it is given.
//
// # Flow
//
// A Follower feeds one destination. One goroutine looks for files, reads them in
// turn, a bounded piece each, and fills batches; others ship batches and settle
// them. A file's checkpoint moves when the records in front of it have a verdict
// each, never before. All batches busy stops the reading; the files are the
// buffer. Nothing is unbounded: a few batches of 2 MiB, one buffer of a record's
// largest size, OpenFiles descriptors, maxFiles files, and, of what is deleted
// or spooled, HeldBytes and Spool.
//
// # Files
//
// A generation is one content of one file: its identity is where it lies
// (device and inode) and how it begins, never its name. A file that is renamed
// away is read to its end; a file that shrinks is a new generation, and what
// was left of the old one is looked for in the copy that copytruncate makes.
// Generations that were rotated away while nobody looked are found beside their
// path (NAME.1, NAME-20261123, NAME.20261123-101500, STEM-20261123.EXT, and those
// with .gz) and read first, in the order of their names; a compressed one is known
// by what it holds. A file without news is closed and watched (inotify), so that thousands
// need few descriptors; a look at all files finds what no event told.
//
// # Records
//
// A line ends with a newline; without one it waits, until its file was rotated
// away and nobody writes to it. Lines of containers are those of a runtime (CRI)
// or of Docker's json-file: their prefix becomes @timestamp and stream, and the
// parts of a record that was split are joined for each stream, also across a
// rotation. Reading resumes at a place that no record reaches across, so after a
// crash no record is torn. What is special stands in log.flags:
//
//	cut           longer than MaxRecord; nines.bytes_cut says by how much
//	partial       a part of a record whose rest did not come in time
//	torn          the last line of a file, without its end
//	unparsed      a line of a container in no form of a runtime, kept whole
//	invalid_utf8  bytes that are no UTF-8 are U+FFFD; nines.message_base64 has them
//	no_metadata   the pod's labels were not known in time
//
// The _id of a record is that of its generation and the offset where it begins.
// Of a container's file it comes from who wrote it and its first line; of others
// it is random, and on disk before its first record leaves. What may have been
// sent is in the checkpoint before it is sent, so that after a crash the
// destination is asked to look for it first.
//
// # The account
//
// For each file and in sum, in bytes of the files and in records, at any moment
// and across restarts:
//
//	seen = stored + dead_lettered + dropped + in_flight + unread + lost
//
// Lost is what was known to be there and went away before it was read. What
// came and went unseen has no size; it is a gap, which is counted and logged
// with its bounds in time. Seen is measured by the sizes of files, so that the
// sum proves something.
package logs
