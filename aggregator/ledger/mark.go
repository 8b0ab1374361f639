package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Mark is a fact that later derivations of minutes must know, beside samples:
// which sender of a pair is counted from a time on (R7), a scrape of which a
// part was refused (R6).
type Mark struct {
	Kind  string `json:"kind"`
	Key   string `json:"key"`
	At    int64  `json:"at"` // milliseconds since the epoch
	Value string `json:"value,omitempty"`
}

// markKey sorts by kind, key and time. A mark has one value at a time.
func markKey(m Mark) []byte {
	kind, key := sha256.Sum256([]byte(m.Kind)), sha256.Sum256([]byte(m.Key))
	k := append([]byte("m"), kind[:4]...)
	k = append(k, key[:8]...)
	return binary.BigEndian.AppendUint64(k, uint64(m.At)^1<<63)
}

// Marks returns the marks of a kind, by key and then by time.
func (b *Book) Marks(kind string) ([]Mark, error) {
	var out []Mark
	prefix := markKey(Mark{Kind: kind})[:5]
	err := b.each(prefix, after(prefix), func(_, v []byte) error {
		_, text, err := splitMark(v)
		if err != nil {
			return err
		}
		var m Mark
		if err := json.Unmarshal(text, &m); err != nil {
			return fmt.Errorf("%w: mark: %w", errCorrupt, err)
		}
		if m.Kind == kind {
			out = append(out, m)
		}
		return nil
	})
	slices.SortStableFunc(out, func(a, b Mark) int { return strings.Compare(a.Key, b.Key) })
	return out, err
}

// splitMark returns the batch of a mark and its JSON.
func splitMark(v []byte) (seq uint64, text []byte, err error) {
	c := cursor{data: v}
	c.version()
	if seq = c.uvarint(); c.bad {
		return 0, nil, fmt.Errorf("%w: mark", errCorrupt)
	}
	return seq, c.data, nil
}

// markPairs returns what is new of a batch's marks. A mark of an earlier batch
// is left out; another value at the same time is refused.
func (b *Book) markPairs(marks []Mark, seq uint64) ([]pair, error) {
	var out []pair
	for _, m := range marks {
		text, err := json.Marshal(m)
		if err != nil {
			return nil, fmt.Errorf("encode mark %q: %w", m.Key, err)
		}
		k := markKey(m)
		old, err := b.get(k)
		if err != nil {
			return nil, fmt.Errorf("look for an earlier mark: %w", err)
		}
		if old != nil {
			booked, known, err := splitMark(old)
			if err != nil {
				return nil, err
			}
			if !bytes.Equal(known, text) {
				return nil, fmt.Errorf("mark %s of %q is in the book as %s and may not become %s", m.Kind, m.Key, known, text)
			}
			if booked != seq {
				continue
			}
		}
		out = append(out, pair{k, append(binary.AppendUvarint([]byte{valueVersion}, seq), text...)})
	}
	return out, nil
}
