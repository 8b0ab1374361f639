package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nines/agent/collect/node"
	"nines/pkg/ops"
)

// memory is what the agent must know after a restart, beside its queues. It is
// a small file in the state folder.
type memory struct {
	path string

	// BootID names the running kernel, BootTime is when it booted (ms since
	// the epoch) as the first agent under this kernel read it. The kernel
	// computes it from the clock, so it shifts with each correction; a start
	// timestamp must not.
	BootID   string `json:"boot_id"`
	BootTime int64  `json:"boot_time"`
	// Born is when this state was first used (ms since the epoch): what is
	// counted in it counts since then.
	Born int64 `json:"born"`
	// Heartbeat is the UTC minute (since the epoch) of the newest heartbeat,
	// so that a restart within a minute does not count it twice.
	Heartbeat int64 `json:"heartbeat_minute"`
}

// recall reads the file in the state folder. Proc is where procfs is mounted.
// It does not write: on a full disk the agent still runs and tells of it.
func recall(state, proc string) (*memory, error) {
	m := &memory{path: filepath.Join(state, "agent.json")}
	data, err := os.ReadFile(m.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(data, m); err != nil {
			return nil, fmt.Errorf("%s is damaged: remove it; only the newest heartbeat and the boot time are in it: %w", m.path, err)
		}
	}
	if m.Born == 0 {
		m.Born = time.Now().UnixMilli()
	}
	id, err := os.ReadFile(filepath.Join(proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return nil, fmt.Errorf("read boot id: %w", err)
	}
	if now := strings.TrimSpace(string(id)); m.BootID != now || m.BootTime == 0 {
		boot, err := node.BootTime(proc)
		if err != nil {
			return nil, err
		}
		m.BootID, m.BootTime = now, boot.UnixMilli()
	}
	return m, nil
}

func (m *memory) boot() time.Time { return time.UnixMilli(m.BootTime) }

func (m *memory) save() error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return ops.Remedy(ops.WriteFile(m.path, append(data, '\n'), 0o640))
}

// beat says whether this minute has had no heartbeat yet, and remembers that
// it has one now.
func (m *memory) beat(now time.Time) (bool, error) {
	minute := now.Unix() / 60
	if minute <= m.Heartbeat && m.Heartbeat-minute < 24*60 {
		return false, nil
	}
	m.Heartbeat = minute
	return true, m.save()
}
