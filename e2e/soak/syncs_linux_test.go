package soak

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel hands the child's fsync and fdatasync to the test (seccomp user
// notification): the test copies what is being synced and answers for the
// kernel. So each path to the disk is seen, whoever takes it, and the disk of
// the host is not waited for.

// syncsFD is where the child finds its end of the socket to the test.
const syncsFD = 3

var audit = map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}

// handOverSyncs is called by the child before it opens anything.
func handOverSyncs() error {
	arch, ok := audit[runtime.GOARCH]
	if !ok {
		return fmt.Errorf("on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	const ret = unix.BPF_RET | unix.BPF_K
	const jeq = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	const load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	program := []unix.SockFilter{
		{Code: load, K: 4}, // seccomp_data.arch
		{Code: jeq, K: arch, Jt: 0, Jf: 3},
		{Code: load, K: 0}, // seccomp_data.nr
		{Code: jeq, K: unix.SYS_FSYNC, Jt: 2},
		{Code: jeq, K: unix.SYS_FDATASYNC, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// All threads; a signal of the scheduler does not interrupt a sync.
	flags := unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_TSYNC |
		unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("install a filter of system calls: %w", errno)
	}
	if err := unix.Sendmsg(syncsFD, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return fmt.Errorf("hand the listener over: %w", err)
	}
	return errors.Join(unix.Close(int(fd)), unix.Close(syncsFD))
}

// notification is struct seccomp_notif, answer is struct seccomp_notif_resp.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// serveSyncs takes the listener from the socket and calls sync with the path of
// each file that the child syncs, and gives its answer to the child. It returns
// when the child has ended.
func serveSyncs(socket *os.File, sync func(path string) error) error {
	buf, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	n, rn, _, _, err := unix.Recvmsg(int(socket.Fd()), buf, rights, 0)
	if err != nil {
		return fmt.Errorf("wait for the child's listener: %w", err)
	}
	if n == 0 {
		return nil // killed before it opened anything
	}
	messages, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return fmt.Errorf("read the child's listener: %w", err)
	}
	if len(messages) != 1 {
		return fmt.Errorf("read the child's listener: %d messages", len(messages))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return fmt.Errorf("read the child's listener: %w", err)
	}
	if len(fds) != 1 {
		return fmt.Errorf("read the child's listener: %d descriptors", len(fds))
	}
	listener := fds[0]
	defer unix.Close(listener)
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return fmt.Errorf("wait for a sync: %w", err)
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return nil // nobody is left
		}
		var got notification
		if err := control(listener, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&got)); err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
				continue // it died meanwhile
			}
			return fmt.Errorf("take a sync: %w", err)
		}
		a := answer{id: got.id}
		if err := sync(fmt.Sprintf("/proc/%d/fd/%d", got.pid, got.args[0])); err != nil {
			var errno unix.Errno
			if !errors.As(err, &errno) {
				errno = unix.EIO
			}
			a.errno = -int32(errno)
		}
		if err := control(listener, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer a sync: %w", err)
		}
	}
}

func control(fd int, request uint, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
