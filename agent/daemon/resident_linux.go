package daemon

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// dropStart gives back the pages of the program's own file that its start has
// mapped: two thirds of them hold what runs once, such as the tables of types
// that are registered. Those that are needed again are mapped again from the
// page cache, at 64 KiB a fault. A mapping with pages of its own (relocated, or
// changed by a debugger) stays as it is: what it holds is nowhere else.
func dropStart(log *slog.Logger) {
	self, err := os.Executable()
	if err == nil {
		var smaps *os.File
		if smaps, err = os.Open("/proc/self/smaps"); err == nil {
			err = dropClean(bufio.NewScanner(smaps), self)
			_ = smaps.Close() // only read
		}
	}
	if err != nil {
		log.Debug("pages of the start stay in memory", "error", err)
	}
}

// dropClean reads smaps (proc(5)) and drops the mappings of a file that are
// neither writable nor have anonymous pages.
func dropClean(smaps *bufio.Scanner, file string) error {
	var from, to uintptr
	for smaps.Scan() {
		fields := strings.Fields(smaps.Text())
		switch {
		case len(fields) >= 5 && strings.Contains(fields[0], "-"):
			from, to = 0, 0
			if len(fields) == 6 && fields[5] == file && strings.HasPrefix(fields[1], "r-") {
				a, b, _ := strings.Cut(fields[0], "-")
				begin, err := strconv.ParseUint(a, 16, 64)
				if err != nil {
					return fmt.Errorf("read smaps: %w", err)
				}
				end, err := strconv.ParseUint(b, 16, 64)
				if err != nil {
					return fmt.Errorf("read smaps: %w", err)
				}
				from, to = uintptr(begin), uintptr(end)
			}
		case from < to && len(fields) == 3 && fields[0] == "Anonymous:" && fields[1] == "0":
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
				return fmt.Errorf("madvise: %w", errno)
			}
		}
	}
	return smaps.Err()
}
