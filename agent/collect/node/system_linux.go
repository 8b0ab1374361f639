package node

import "golang.org/x/sys/unix"

// system is what is asked of the kernel by call, not by file.
type system interface {
	statfs(path string) (usage, error)
	uname() (names, error)
	// adjtimex returns the state of the clock, too.
	adjtimex() (unix.Timex, int, error)
}

type names struct{ sysname, release, version, machine, nodename, domainname string }

type hostSystem struct{}

func (hostSystem) statfs(path string) (usage, error) {
	var b unix.Statfs_t
	if err := unix.Statfs(path, &b); err != nil {
		return usage{}, err
	}
	block := float64(b.Bsize)
	return usage{
		size: float64(b.Blocks) * block, free: float64(b.Bfree) * block, avail: float64(b.Bavail) * block,
		files: float64(b.Files), filesFree: float64(b.Ffree),
	}, nil
}

func (hostSystem) uname() (names, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return names{}, err
	}
	text := func(b [65]byte) string { return unix.ByteSliceToString(b[:]) }
	return names{text(u.Sysname), text(u.Release), text(u.Version), text(u.Machine), text(u.Nodename), text(u.Domainname)}, nil
}

func (hostSystem) adjtimex() (unix.Timex, int, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return t, state, err
}
