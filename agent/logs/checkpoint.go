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
	"time"

	"nines/agent/ship"
	"nines/pkg/ops"
)

// checkpoint is what is known of all files, at rest: a line with the format
// and the CRC-32C of the rest, then JSON.
type checkpoint struct {
	Generations []saved          `json:"generations"`
	Retired     map[string]tally `json:"retired,omitempty"` // by path: the sums of forgotten generations
	Forgotten   tally            `json:"forgotten"`         // the sum of forgotten paths
	Dropped     map[string]int64 `json:"dropped,omitempty"` // records by reason
	Lost        map[string]int64 `json:"lost,omitempty"`    // bytes by reason
	Redriven    tally            `json:"redriven"`          // of dead letters that were stored later: Stored and StoredRecords
	RedriveAt   ship.Position    `json:"redrive_at"`        // how far dead letters were sent again
	GapCount    int64            `json:"gap_count"`
	Gaps        []Gap            `json:"gaps,omitempty"` // the newest
}

// Gap is a time in which lines may have come and gone unseen.
type Gap struct {
	Path   string    `json:"path"`
	From   time.Time `json:"from"` // the newest write that was seen
	To     time.Time `json:"to"`   // when it was noticed
	Lost   int64     `json:"lost_bytes"`
	Reason string    `json:"reason"`
}

// maxGaps is how many gaps are kept word for word.
const maxGaps = 100

// saved is one generation at rest.
type saved struct {
	ID      string `json:"id"`
	Record  string `json:"record_id,omitempty"` // common part of the IDs of its records
	Path    string `json:"path"`                // that a pattern matched
	Name    string `json:"name"`                // where it was seen last; another one after a rotation
	Device  uint64 `json:"device"`
	Inode   uint64 `json:"inode"`
	HeadLen int    `json:"head_len"`       // bytes that Head covers
	Head    uint64 `json:"head"`           // xxhash of the first HeadLen bytes
	Offset  int64  `json:"offset"`         // all before it has a verdict
	Ahead   int64  `json:"ahead"`          // what is before it may have been sent
	Size    int64  `json:"size"`           // the most that was seen, in bytes
	ModTime int64  `json:"mod_time"`       // ns since the epoch
	Tally   tally  `json:"tally"`          // of the bytes before Offset
	Done    bool   `json:"done,omitempty"` // rotated away and read to its end
	Spooled bool   `json:"spooled,omitempty"`
	Base    int64  `json:"base,omitempty"` // of a spooled one: the offset at which its copy begins
}

// generation is the one at rest, to be found again.
func (s saved) generation() *generation {
	return &generation{
		id: s.ID, recordID: s.Record, path: s.Path, name: s.Name, key: fileKey{s.Device, s.Inode}, headLen: s.HeadLen, head: s.Head,
		modTime: time.Unix(0, s.ModTime), done: s.Done, rotated: s.Done || s.Spooled, ahead: s.Ahead, uncertain: s.Ahead,
		size: s.Size, read: s.Offset, offset: s.Offset, tally: s.Tally,
		spooled: s.Spooled, base: s.Base, zipped: isZipped(s.Name),
	}
}

// tally is what became of bytes, and of records.
type tally struct {
	Stored       int64 `json:"stored"`
	DeadLettered int64 `json:"dead_lettered,omitempty"`
	Dropped      int64 `json:"dropped,omitempty"`
	Lost         int64 `json:"lost,omitempty"`

	StoredRecords       int64 `json:"stored_records"`
	DeadLetteredRecords int64 `json:"dead_lettered_records,omitempty"`
	DroppedRecords      int64 `json:"dropped_records,omitempty"`
	LostRecords         int64 `json:"lost_records,omitempty"` // one for each loss
}

func (t *tally) add(o tally) {
	t.Stored += o.Stored
	t.DeadLettered += o.DeadLettered
	t.Dropped += o.Dropped
	t.Lost += o.Lost
	t.StoredRecords += o.StoredRecords
	t.DeadLetteredRecords += o.DeadLetteredRecords
	t.DroppedRecords += o.DroppedRecords
	t.LostRecords += o.LostRecords
}

// settled is the bytes that have a verdict.
func (t tally) settled() int64 { return t.Stored + t.DeadLettered + t.Dropped + t.Lost }

// records is how many have one.
func (t tally) records() int64 {
	return t.StoredRecords + t.DeadLetteredRecords + t.DroppedRecords + t.LostRecords
}

const checkpointFormat = "nines-log-checkpoint 2 "

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
		if g.ID == "" || g.Path == "" || g.Offset < 0 || g.Size < g.Offset || g.HeadLen < 0 || g.HeadLen > maxHead || g.Base < 0 || g.Base > g.Offset || g.Tally.settled() != g.Offset {
			return c, fmt.Errorf("the entry of %q contradicts itself", g.Path)
		}
	}
	return c, nil
}

// readCheckpoint returns an empty one where there is none yet, and says whether
// there was one.
func readCheckpoint(state string) (c checkpoint, found bool, err error) {
	path := checkpointPath(state)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return checkpoint{}, false, nil
	}
	if err != nil {
		return checkpoint{}, false, ops.Remedy(fmt.Errorf("read checkpoint: %w", err))
	}
	if c, err = decodeCheckpoint(data); err != nil {
		return checkpoint{}, false, fmt.Errorf("%s is damaged: %w: restore it, or remove it to read all files again from their beginning (what was stored before is then stored a second time)", path, err)
	}
	return c, true, nil
}

// savedAt is when the checkpoint was written.
func savedAt(state string) (time.Time, error) {
	info, err := os.Stat(checkpointPath(state))
	if err != nil {
		return time.Time{}, ops.Remedy(fmt.Errorf("read checkpoint: %w", err))
	}
	return info.ModTime(), nil
}
