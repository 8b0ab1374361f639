// Package logs follows the files of logs and hands their lines, as records, to
// a destination of agent/ship. It owns which files there are, where each was
// read to, and the account of every byte.
//
// # Flow
//
// One goroutine looks for files, reads them in turn, a bounded piece each, and
// fills batches. Two others ship batches and settle them: a file's checkpoint
// moves when the records in front of it have a verdict each, never before. All
// batches busy stops the reading; the files are the buffer. Nothing is
// unbounded: three batches of a few MiB, one buffer of a record's largest size,
// maxFiles open files.
//
// # Files
//
// A generation is one content of one file: its identity is where it lies
// (device and inode) and how it begins, never its name. A file that is renamed
// away is read to its end; a file that shrinks is a new generation, and what
// was left of the old one is looked for in the copy that copytruncate makes.
// After a downtime rotated generations are found beside their path
// (NAME.1, NAME-20261123, not compressed) and read first. The identity of a
// generation is on disk before its first record leaves, so that a record has
// the same _id for ever.
//
// # Lines
//
// A line ends with a newline; without one it waits, until its file was rotated
// away and nobody writes to it. A line longer than MaxRecord is cut, marked
// with the flag "cut", and counted. Bytes that are no UTF-8 become U+FFFD in
// message, and the line as it was stands in nines.message_base64, with the flag
// "invalid_utf8". Lines below /var/log/pods and /var/log/containers are those
// of a container runtime (CRI): their prefix becomes @timestamp and stream, a
// part of a longer line has the flag "partial", and a line that is not of this
// form is kept whole with the flag "unparsed".
//
// # The account
//
// For each path, in bytes of the files, at any moment and across restarts:
//
//	seen = stored + dead_lettered + dropped + in_flight + unread + lost
//
// Lost is what was known to be there and went away before it was read. What
// came and went unseen has no size; it is a gap, which is counted and logged
// with its bounds in time.
package logs
