package ledger

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
)

// reserve is what must be free on the disk before a batch is written: the store
// can't take back a log record that fits half, and rewrites tables beside it.
const reserve = 64 << 20

// commit makes a batch durable. Where the disk is full it writes nothing, and
// does so again when there is space. What fails below is not tried again: the
// store can't tell what of it is on the disk, a restart can.
func (b *Book) commit(w *pebble.Batch) (err error) {
	if err := b.failed(); err != nil {
		return err
	}
	if usage, err := b.disk.GetDiskUsage(b.dir); err == nil && usage.AvailBytes < reserve+4*uint64(w.Len()) {
		return fmt.Errorf("%d MiB are free on the disk of the ledger, it needs %d MiB: %w", usage.AvailBytes>>20, uint64(reserve)>>20, syscall.ENOSPC)
	}
	defer func() {
		if p := recover(); p != nil {
			b.fail(p)
			err = b.failed()
		}
	}()
	return w.Commit(pebble.Sync)
}

// fail notes why the store can't go on.
func (b *Book) fail(why any) {
	cause, ok := why.(error)
	if !ok {
		cause = errors.New(fmt.Sprint(why))
	}
	err := fmt.Errorf("the ledger can't be written any more, what was acknowledged is safe: look at its disk and restart: %w", cause)
	if b.fault.CompareAndSwap(nil, &err) {
		b.log.Error("the ledger can't be written any more", "error", cause)
	}
}

// failed returns why the store can't go on, nil while it can.
func (b *Book) failed() error {
	if err := b.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// pebbleLog hands the base's messages to ours.
type pebbleLog struct{ book *Book }

func (l pebbleLog) Infof(format string, args ...any) {
	l.book.log.Debug(fmt.Sprintf("ledger base: "+format, args...))
}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.book.log.Error(fmt.Sprintf("ledger base: "+format, args...))
}

// Fatalf is called when the base can't go on, as with a disk that fails below
// it: going on would book what may not be durable. It must not return. In the
// base's own goroutines, which write tables and the list of them, it ends that
// goroutine; in ours it is an error of the commit.
func (l pebbleLog) Fatalf(format string, args ...any) {
	err := fatal{fmt.Sprintf("ledger base: "+format, args...), nil}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err.cause = cause
		}
	}
	l.book.fail(err)
	if strings.HasPrefix(format, "MANIFEST") && l.book.opened.Load() {
		runtime.Goexit()
	}
	panic(err)
}

// fatal is an error that the base does not survive.
type fatal struct {
	what  string
	cause error
}

func (f fatal) Error() string { return f.what }
func (f fatal) Unwrap() error { return f.cause }
