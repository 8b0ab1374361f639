package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"nines/pkg/ops"
)

// checkpoint is what is known of all files, at rest: a line with the format
// and the CRC-32C of the rest, then JSON.
type checkpoint struct {
	Generations []saved          `json:"generations"`
	Retired     map[string]tally `json:"retired,omitempty"` // by path: the sums of forgotten generations
}

// saved is one generation at rest.
type saved struct {
	ID      string `json:"id"`
	Path    string `json:"path"` // that a pattern matched
	Name    string `json:"name"` // where it was seen last; another one after a rotation
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
	HeadLen int    `json:"head_len"`       // bytes that Head covers
	Head    uint64 `json:"head"`           // xxhash of the first HeadLen bytes
	Offset  int64  `json:"offset"`         // all before it has a verdict
	Size    int64  `json:"size"`           // the most that was seen, in bytes
	ModTime int64  `json:"mod_time"`       // ns since the epoch
	Tally   tally  `json:"tally"`          // of the bytes before Offset
	Done    bool   `json:"done,omitempty"` // rotated away and read to its end
}

// tally is what became of bytes, and of records.
type tally struct {
	Stored       int64 `json:"stored"`
	DeadLettered int64 `json:"dead_lettered,omitempty"`
	Dropped      int64 `json:"dropped,omitempty"`
	Lost         int64 `json:"lost,omitempty"`

	StoredRecords       int64 `json:"stored_records"`
	DeadLetteredRecords int64 `json:"dead_lettered_records,omitempty"`
}

func (t *tally) add(o tally) {
	t.Stored += o.Stored
	t.DeadLettered += o.DeadLettered
	t.Dropped += o.Dropped
	t.Lost += o.Lost
	t.StoredRecords += o.StoredRecords
	t.DeadLetteredRecords += o.DeadLetteredRecords
}

// settled is the bytes that have a verdict.
func (t tally) settled() int64 { return t.Stored + t.DeadLettered + t.Dropped + t.Lost }

const checkpointFormat = "nines-log-checkpoint 1 "

func checkpointPath(state string) string { return filepath.Join(state, "checkpoint") }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (c checkpoint) encode() ([]byte, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", err)
	}
	head := fmt.Sprintf("%s%08x\n", checkpointFormat, crc32.Checksum(body, castagnoli))
	return append([]byte(head), body...), nil
}

func decodeCheckpoint(data []byte) (checkpoint, error) {
	var c checkpoint
	head, body, _ := bytes.Cut(data, []byte{'\n'})
	sum, ok := bytes.CutPrefix(head, []byte(checkpointFormat))
	if !ok {
		return c, errors.New("it is of no format that this version knows")
	}
	if want := fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)); string(sum) != want {
		return c, errors.New("its checksum is wrong")
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, err
	}
	for _, g := range c.Generations {
		if g.ID == "" || g.Path == "" || g.Offset < 0 || g.Size < g.Offset || g.HeadLen < 0 || g.HeadLen > maxHead || g.Tally.settled() != g.Offset {
			return c, fmt.Errorf("the entry of %q contradicts itself", g.Path)
		}
	}
	return c, nil
}

// readCheckpoint returns an empty one where there is none yet.
func readCheckpoint(state string) (checkpoint, error) {
	path := checkpointPath(state)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return checkpoint{}, nil
	}
	if err != nil {
		return checkpoint{}, ops.Remedy(fmt.Errorf("read checkpoint: %w", err))
	}
	c, err := decodeCheckpoint(data)
	if err != nil {
		return checkpoint{}, fmt.Errorf("%s is damaged: %w: restore it, or remove it to read all files again from their beginning (what was stored before is then stored a second time)", path, err)
	}
	return c, nil
}
