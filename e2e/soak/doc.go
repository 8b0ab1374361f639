// Package soak breaks the way from a sample to the ledger at random moments and
// proves that the book holds what was sent: `make soak-ledger`, and some rounds
// with every `go test`.
//
// A child process runs the real store, evaluator and ledger on a folder. The
// test is its senders, as agents are: they keep what was not acknowledged and
// send it again. Time is told to the child with each message, so that hours
// pass in seconds. The test knows each event that it sent, so it knows each
// minute of the book.
//
// Three things are done to the child. It is killed (SIGKILL) at random moments:
// right after acknowledgements, in the middle of ticks, while it opens its
// folder. Its power is cut: every fsync of the child is seen by the test, which
// then puts the folder back to what had been synced, or to that and a torn or
// scrambled tail. Its disk is full: the folder lies on a small file system of
// its own that is filled up and emptied again.
//
// What it does not show: the loss of what a disk said it had synced, damage
// behind the end of a log, and two writers of one book.
package soak
