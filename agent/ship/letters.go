package ship

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"nines/pkg/ops"
)

// deadLetter is a line of the dead letters.
type deadLetter struct {
	ID     string          `json:"_id"`
	Stream string          `json:"stream"`
	Error  string          `json:"error"`
	Time   string          `json:"time"` // of the refusal
	Bytes  int64           `json:"bytes"`
	Doc    json.RawMessage `json:"document"`
}

// appendLetter appends a line. A document that is no JSON object stands in it
// as a text.
func appendLetter(b []byte, r Record, why string, now time.Time) []byte {
	doc := json.RawMessage(r.Doc)
	if len(doc) == 0 || doc[0] != '{' || !json.Valid(doc) { // which Elasticsearch saw too
		text, err := json.Marshal(string(r.Doc))
		if err != nil {
			panic(err) // a text always has a form in JSON
		}
		doc = text
	}
	letter, err := json.Marshal(deadLetter{r.ID, r.Stream, why, now.UTC().Format(time.RFC3339Nano), r.Bytes, doc})
	if err != nil {
		panic(err) // texts and valid JSON always have a form in JSON
	}
	return append(append(b, letter...), '\n')
}

// parseLetter makes a line into the record that it was. It may have been sent
// since by a Redrive that did not end.
func parseLetter(line []byte) (Record, error) {
	var l deadLetter
	if err := json.Unmarshal(line, &l); err != nil {
		return Record{}, err
	}
	r := Record{ID: l.ID, Stream: l.Stream, Bytes: l.Bytes, Doc: l.Doc, Uncertain: true}
	if l.ID == "" || l.Stream == "" || len(l.Doc) == 0 {
		return Record{}, errors.New("_id, stream or document is missing")
	}
	if l.Doc[0] == '"' {
		var text string
		if err := json.Unmarshal(l.Doc, &text); err != nil {
			return Record{}, err
		}
		r.Doc = []byte(text)
	}
	if bytes.ContainsAny(r.Doc, "\n\r") {
		// It would be two lines of a bulk. Where JSON has a line end it is a
		// space between tokens.
		r.Doc = bytes.Map(func(c rune) rune {
			if c == '\n' || c == '\r' {
				return ' '
			}
			return c
		}, r.Doc)
	}
	return r, nil
}

// A batch of a redrive has so many letters at most, and about so many bytes.
const (
	redriveLetters = 1000
	redriveBytes   = 4 << 20
)

// errRedriving is that of a second Redrive beside the first.
var errRedriving = errors.New("a redrive is under way already: wait for its end")

// Redrive implements Redriver. A file is removed when all of its letters have a
// verdict and each has been told, and those that were refused again are synced
// in a new file: whenever it ends, no letter is lost. Of several letters of one
// record only the last is sent, so that each record is told once. It takes as
// long as the destination holds; the context ends it. In memory it keeps the
// place of each letter, about 60 bytes.
func (e *Elasticsearch) Redrive(ctx context.Context, after Position, each func(Redriven) error) (RedriveSum, error) {
	if !e.redriving.TryLock() {
		return RedriveSum{}, errRedriving
	}
	defer e.redriving.Unlock()
	files, err := e.dead.finish()
	if err != nil {
		return RedriveSum{}, ops.Remedy(err)
	}
	r := redrive{e: e, each: each, last: map[[16]byte]place{}}
	for _, n := range files {
		start, err := r.survey(n, after)
		if err != nil {
			return r.sum, ops.Remedy(err)
		}
		r.starts = append(r.starts, start)
	}
	defer e.dead.pin(0)
	for i, n := range files {
		e.dead.pin(n)
		if err := r.file(ctx, n, r.starts[i]); err != nil {
			return r.sum, ops.Remedy(err)
		}
	}
	return r.sum, nil
}

// place is where a letter is.
type place struct {
	file   uint64
	offset int64
}

// redrive is one call of Redrive.
type redrive struct {
	e      *Elasticsearch
	each   func(Redriven) error
	last   map[[16]byte]place // of each _id, the newest letter
	starts []Position         // of each file, where to begin
	done   int
	total  int
	sum    RedriveSum
}

func idOf(id string) [16]byte {
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:16])
}

// survey reads a file to know its letters. It begins behind the position where
// that is of this file.
func (r *redrive) survey(n uint64, after Position) (Position, error) {
	start := Position{File: n}
	err := r.lines(n, 0, func(line []byte, at int64) error {
		if at == 0 {
			sum := sha256.Sum256(line)
			start.First = hex.EncodeToString(sum[:8])
			if after.File == n && after.First == start.First {
				start.Offset = after.Offset
			}
		}
		if at < start.Offset {
			return nil
		}
		r.total++
		if rec, err := parseLetter(line); err == nil {
			r.last[idOf(rec.ID)] = place{n, at}
		}
		return nil
	})
	return start, err
}

// lines calls do with each line of a file and its offset.
func (r *redrive) lines(n uint64, from int64, do func(line []byte, at int64) error) error {
	f, err := os.Open(r.e.dead.path(n))
	if errors.Is(err, os.ErrNotExist) {
		return nil // removed as the oldest, and counted
	}
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	defer f.Close() // only read
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	in, at := bufio.NewReaderSize(f, 64<<10), from
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			if err := do(line, at); err != nil {
				return err
			}
			at += int64(len(line))
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
	}
}

// file sends the letters of a file and removes it.
func (r *redrive) file(ctx context.Context, n uint64, start Position) error {
	var batch []Record
	size := 0
	here := start
	flush := func() error {
		err := r.ship(ctx, batch, here)
		batch, size = nil, 0
		return err
	}
	err := r.lines(n, start.Offset, func(line []byte, at int64) error {
		rec, err := parseLetter(line)
		switch {
		case err != nil:
			if err := r.keep(line); err != nil {
				return err
			}
		case r.last[idOf(rec.ID)] != place{n, at}:
			r.sum.Repeated++
		default:
			batch = append(batch, rec)
			size += len(line)
		}
		r.done++
		here.Offset = at + int64(len(line))
		if len(batch) >= redriveLetters || size >= redriveBytes {
			return flush()
		}
		return nil
	})
	if err == nil && here != start {
		err = flush()
	}
	if err != nil {
		return err
	}
	if err := r.e.dead.remove(n); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// keep moves a line that is no letter into the file that is written.
func (r *redrive) keep(line []byte) error {
	r.sum.Unreadable++
	if line[len(line)-1] != '\n' {
		line = append(line, '\n')
	}
	return r.e.dead.add(line)
}

// ship sends a batch. Ship has those that are refused again synced before it
// comes back.
func (r *redrive) ship(ctx context.Context, batch []Record, here Position) error {
	verdicts, err := r.e.Ship(ctx, batch)
	if err != nil {
		return err // some may have verdicts: the next time they are told
	}
	told := Redriven{Done: r.done, Total: r.total, Position: here, Records: make([]RedrivenRecord, len(batch))}
	for i, rec := range batch {
		told.Records[i] = RedrivenRecord{rec.ID, rec.Bytes, verdicts[i]}
		switch verdicts[i] {
		case DeadLettered:
			r.sum.RefusedAgain++
			continue
		case AlreadyStored:
			r.sum.AlreadyStored++
		default:
			r.sum.Stored++
		}
		r.e.m.redriven.Inc()
	}
	return r.each(told)
}
