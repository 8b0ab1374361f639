package ledger

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"nines/pkg/sla"
)

// maxAside bounds the entries of a tail that is set aside: a tail that is
// longer is not that of a replica which lost its Lease.
const maxAside = 1_000_000

// setAside writes the batches behind one to a file in the folder of the book,
// one line of JSON for each batch and each of its entries, and then removes them
// from the book, atomic and synced (R26). After a crash between both they are in
// both.
func (b *Book) setAside(after uint64, now time.Time) (file string, err error) {
	b.write.Lock()
	defer b.write.Unlock()
	var tail []filled
	entries := 0
	for seq := after; seq < b.head.Seq; {
		some, err := filledFrom(b.db, seq+1, b.head.Seq)
		if err != nil {
			return "", err
		}
		if len(some) == 0 {
			return "", broken("batch %d is missing", seq+1)
		}
		for _, f := range some {
			if entries += len(f.pairs); entries > maxAside {
				return "", fmt.Errorf("it has more than %d entries: move this book away to copy the leader's from the beginning", maxAside)
			}
		}
		tail = append(tail, some...)
		seq = tail[len(tail)-1].Seq
	}
	if len(tail) == 0 {
		return "", nil
	}
	file = filepath.Join(b.dir, fmt.Sprintf("aside-%s-%d-%d.ndjson", now.UTC().Format("20060102T150405Z"), after+1, b.head.Seq))
	if err := writeTail(file, tail); err != nil {
		return "", err
	}
	w := b.db.NewBatch()
	defer w.Close()
	touched := map[sla.ID]days{} // objectives with minutes in the tail, and their days
	for _, f := range tail {
		err = errors.Join(err, w.Delete(batchKey(f.Seq), nil))
		for _, p := range f.pairs {
			err = errors.Join(err, w.Delete(p.k, nil))
			if p.k[0] != 'e' {
				continue
			}
			id, m, _, bad := parseMinuteKey(p.k)
			if bad != nil {
				return "", bad
			}
			touched[id] = touched[id].with(m.Day())
		}
	}
	for id, all := range touched {
		v := b.view(id, 0)
		err = errors.Join(err, unseal(w, v, all, after), v.close())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err = errors.Join(err, b.commit(w)); err != nil {
		return "", err
	}
	b.recent, b.recentSize = nil, 0
	b.head = Position{}
	b.last, b.loose, b.revised = map[sla.ID]sla.Minute{}, map[sla.ID]days{}, map[sla.ID]days{}
	b.noted++
	return file, errors.Join(b.loadHead(), b.loadDays('e', b.loose), b.loadDays('r', b.revised), b.loadLast())
}

// unseal takes blocks with minutes of later batches apart, and writes the
// objective's headings and its newest sealed minute again.
func unseal(w *pebble.Batch, v *view, touched days, after uint64) error {
	var gone days
	for _, d := range touched {
		day := int64(d)
		k, err := v.block(day)
		if err != nil {
			return err
		}
		if k == nil || k.newest <= after {
			continue
		}
		gone = gone.with(day)
		err = k.each(k.run.First, k.run.First+1440, func(m sla.Minute, e *booking) error {
			if e.seq > after {
				return nil
			}
			return w.Set(minuteKey(v.id, m, 0), encodeBooking(m, *e), nil)
		})
		if err = errors.Join(err, w.Delete(blockKey(day, v.id), nil)); err != nil {
			return err
		}
	}
	last := sla.Minute(math.MinInt64)
	var sum tally
	started := false
	err := v.headings(math.MinInt32, math.MaxInt32+1, func(day int64, h *heading) error {
		if !started {
			started, sum = true, h.before
		}
		if gone.has(day) {
			return w.Delete(headingKey(v.id, day), nil)
		}
		last = h.last
		same := h.before == sum
		h.before = sum
		sum = sum.plus(h.own)
		if same {
			return nil
		}
		return w.Set(headingKey(v.id, day), h.encode(day), nil)
	})
	key := append([]byte("l"), v.id[:]...)
	if last == math.MinInt64 {
		return errors.Join(err, w.Delete(key, nil))
	}
	return errors.Join(err, w.Set(key, binary.BigEndian.AppendUint64(nil, uint64(last)), nil))
}

// writeTail writes a file that is there whole and synced, or an error.
func writeTail(path string, tail []filled) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	out := bufio.NewWriter(f)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	for _, t := range tail {
		booked := time.UnixMilli(t.At).UTC().Format("2006-01-02T15:04:05.000Z")
		err := enc.Encode(struct {
			Batch   uint64 `json:"batch"`
			Term    uint64 `json:"term"`
			Booked  string `json:"booked_at"`
			Hash    string `json:"hash"`
			Before  string `json:"hash_before"`
			Entries uint64 `json:"entries"`
		}{t.Seq, t.Term, booked, hex.EncodeToString(t.Hash[:]), hex.EncodeToString(t.before[:]), t.count})
		for _, p := range t.pairs {
			err = errors.Join(err, asideLine(enc, t.Seq, booked, p))
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(out.Flush(), f.Sync()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// asideLine writes an entry: minutes as Export writes them, all else as it lies
// in the book, which is JSON.
func asideLine(enc *json.Encoder, seq uint64, booked string, p pair) error {
	kind := "first"
	switch p.k[0] {
	case 'r':
		kind = "revision"
	case 'm', 'o', 's':
		name := map[byte]string{'m': "mark", 'o': "objective", 's': "source"}[p.k[0]]
		text := p.v[1:]
		if p.k[0] == 'm' {
			var err error
			if _, text, err = splitMark(p.v); err != nil {
				return err
			}
		}
		return enc.Encode(struct {
			Kind  string          `json:"kind"`
			Batch uint64          `json:"batch"`
			Value json.RawMessage `json:"value"`
		}{name, seq, text})
	}
	id, m, _, err := parseMinuteKey(p.k)
	if err != nil {
		return err
	}
	e, err := decodeBooking(m, p.v)
	if err != nil {
		return err
	}
	return enc.Encode(exportLine(id, kind, m, &e, booked))
}
