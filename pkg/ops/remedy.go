package ops

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
)

// Remedy appends to errors of the operating system what a person can do about
// them, once. Others come back as they are; nil stays nil.
func Remedy(err error) error {
	if errors.As(err, new(*remedied)) {
		return err
	}
	for _, r := range remedies {
		if errors.Is(err, r.is) {
			return &remedied{err, r.do}
		}
	}
	return err
}

// remedied is an error that says what to do.
type remedied struct {
	err error
	do  string
}

func (r *remedied) Error() string { return r.err.Error() + ": " + r.do }
func (r *remedied) Unwrap() error { return r.err }

var remedies = []struct {
	is error
	do string
}{
	{syscall.ENOSPC, "free space on that disk, or move the folder to another one"},
	{syscall.EDQUOT, "the disk quota of this user is used up: free space or raise it"},
	{syscall.EROFS, "choose a folder on a file system that can be written to"},
	{syscall.EADDRINUSE, "another program listens there: stop it or choose another port"},
	{syscall.EADDRNOTAVAIL, "this host does not have that address: use one of its own, or 127.0.0.1"},
	{syscall.ENOTDIR, "a part of that path is a file: choose another folder"},
	{syscall.EMFILE, "raise the limit of open files (ulimit -n)"},
	{fs.ErrPermission, "give this user the permission, or choose another folder or port"},
}

// Listen opens a TCP address such as 127.0.0.1:9191. Its errors name the
// configuration key and the remedy.
func Listen(key, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, Remedy(fmt.Errorf("%s: %w", key, err))
	}
	return l, nil
}
