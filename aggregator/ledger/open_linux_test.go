package ledger

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

func TestFolderWithoutPermissionGivesARemedy(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		// Root may write everywhere: this thread alone becomes another user in
		// the eyes of the file system.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := syscall.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Setfsuid(0); err != nil {
				t.Error(err)
			}
		}()
	}
	_, err := Open(Config{Dir: dir}, silent)
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "give this user the permission") {
		t.Errorf("got %v", err)
	}
}
