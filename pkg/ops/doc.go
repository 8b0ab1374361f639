// Package ops owns what every program of ours needs to be run by others: the
// logger, build information, health endpoints, the lock of a data folder, the
// command line (options, exit codes, completion), files that are either old or
// new after a crash, and words for the failures of an operating system that tell
// a person what to do.
//
// It refuses policy: when a job counts as done, and where files lie, is the
// caller's. It keeps no global state and starts no goroutine.
package ops
