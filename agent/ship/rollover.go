package ship

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"nines/pkg/ops"
)

// An _id is unique in one backing index of a data stream. A record whose fate
// is unknown may stand in the write index of then, which after a rollover is
// not that of now: before it is sent again it is looked for there.

// trail remembers the newest two write indices of each data stream, on disk
// too: the answer that told of the newer one may have come to another request
// than the record's.
type trail struct {
	path string

	saving sync.Mutex // is held while the file is written

	mu    sync.Mutex // guards all below
	seen  map[string][]string
	dirty bool
}

const (
	trailFile = "write-indices.json"
	trailed   = 2
)

// openTrail reads the file. One that is not understood is told and begun anew:
// the price is a duplicate where there was a rollover at the same time.
func openTrail(folder string, log *slog.Logger) (*trail, error) {
	t := &trail{path: filepath.Join(folder, trailFile), seen: map[string][]string{}}
	data, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, ops.Remedy(fmt.Errorf("read the write indices last seen: %w", err))
	}
	if t.seen, err = parseTrail(data); err != nil {
		log.Warn("the write indices last seen are not known any more; they are begun anew", "file", t.path, "error", err)
		t.seen = map[string][]string{}
	}
	return t, nil
}

func parseTrail(data []byte) (map[string][]string, error) {
	seen := map[string][]string{}
	if err := json.Unmarshal(data, &seen); err != nil {
		return nil, err
	}
	for stream, indices := range seen {
		if len(indices) == 0 || len(indices) > trailed || slices.Contains(indices, "") {
			return nil, fmt.Errorf("%q has %d indices", stream, len(indices))
		}
	}
	if seen == nil { // null
		return nil, errors.New("it is empty")
	}
	return seen, nil
}

// note takes the index that an answer named.
func (t *trail) note(stream, index string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A late answer may name the older one.
	if indices := t.seen[stream]; !slices.Contains(indices, index) {
		t.seen[stream] = append(slices.Clone(indices[max(0, len(indices)-trailed+1):]), index)
		t.dirty = true
	}
}

// of returns the write indices last seen, older first. They are not changed.
func (t *trail) of(stream string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen[stream]
}

// save writes what is new.
func (t *trail) save() error {
	t.saving.Lock()
	defer t.saving.Unlock()
	t.mu.Lock()
	if !t.dirty {
		t.mu.Unlock()
		return nil
	}
	data, err := json.MarshalIndent(t.seen, "", "  ")
	t.dirty = false
	t.mu.Unlock()
	if err == nil {
		err = ops.WriteFile(t.path, append(data, '\n'), 0o640)
	}
	if err != nil {
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
		return fmt.Errorf("remember the write index: %w", err)
	}
	return nil
}

// doubt is what is known of a record whose fate is not.
type doubt struct {
	unsure bool
	looked []string // the indices in which it was looked for and not found
	landed bool     // it is stored now; what is open is whether it is elsewhere, too
}

// look looks for the uncertain records of a chunk in the write indices last
// seen. It gives verdicts to those that are there, and returns the others.
func (e *Elasticsearch) look(ctx context.Context, records []Record, chunk []int, doubts []doubt, verdicts []Verdict) ([]int, *trouble) {
	// Those that were just stored: what stands in another index, too, is a
	// duplicate. The others: what is there needs not be sent.
	in := map[string][]int{}
	asked := map[string]bool{}
	for _, i := range chunk {
		d, stream := &doubts[i], records[i].Stream
		if !d.unsure {
			continue
		}
		if !d.landed {
			if len(e.trail.of(stream)) == 0 && !asked[stream] {
				asked[stream] = true
				if t := e.findTrail(ctx, stream); t != nil {
					return chunk, t
				}
			}
			d.looked = e.trail.of(stream)
		}
		for _, index := range d.looked {
			in[index] = append(in[index], i)
		}
	}
	found := map[int]bool{}
	for _, index := range slices.Sorted(maps.Keys(in)) {
		there, t := e.mget(ctx, index, records, in[index])
		if t != nil {
			return chunk, t
		}
		for k, i := range in[index] {
			if there[k] {
				found[i] = true
			}
		}
	}
	rest := make([]int, 0, len(chunk))
	for _, i := range chunk {
		switch d := doubts[i]; {
		case d.landed:
			if found[i] {
				e.m.duplicates.Inc()
			}
			verdicts[i] = Stored
		case found[i]:
			e.m.again.Inc()
			verdicts[i] = AlreadyStored
		default:
			rest = append(rest, i)
		}
	}
	return rest, nil
}

// findTrail asks for the newest backing indices of a stream of which no answer
// has come yet: what was sent without one may stand there.
func (e *Elasticsearch) findTrail(ctx context.Context, stream string) *trouble {
	res, t := e.do(ctx, http.MethodGet, "/"+url.PathEscape(stream)+"/_settings?filter_path=*.settings.index.creation_date", "", "", bytesBody(nil))
	switch {
	case t != nil:
	case res.status == http.StatusOK:
		indices := ofSettings(res.body())
		for _, index := range indices[max(0, len(indices)-trailed):] {
			e.trail.note(stream, index)
		}
	case res.status == http.StatusUnauthorized, res.status == http.StatusForbidden, res.status == http.StatusTooManyRequests, res.status >= 500:
		_, t = ofRequest(res.status, res.body(), 0, e.cfg.unauthorized())
	} // else there is no stream yet, or a server that has none
	if res != nil {
		res.free()
	}
	if t != nil {
		t.text = "look for the indices of " + stream + ": " + t.text
		t.unsure, t.tooLarge = false, false // nothing was sent
	}
	return t
}

// ofSettings reads the indices of a stream, the oldest first. What else a server
// may say names none.
func ofSettings(body []byte) []string {
	answer := map[string]json.RawMessage{}
	if json.Unmarshal(body, &answer) != nil {
		return nil
	}
	created := map[string]int64{}
	for index, raw := range answer {
		var one struct {
			Settings struct {
				Index struct {
					Created string `json:"creation_date"` // ms since the epoch
				} `json:"index"`
			} `json:"settings"`
		}
		if json.Unmarshal(raw, &one) != nil || index == "" {
			continue
		}
		if ms, err := strconv.ParseInt(one.Settings.Index.Created, 10, 64); err == nil {
			created[index] = ms
		}
	}
	return slices.SortedFunc(maps.Keys(created), func(a, b string) int {
		return cmp.Or(cmp.Compare(created[a], created[b]), cmp.Compare(a, b))
	})
}

// mget asks which of the records are in an index. It reads what was written a
// moment ago, without a refresh.
func (e *Elasticsearch) mget(ctx context.Context, index string, records []Record, of []int) ([]bool, *trouble) {
	res, t := e.do(ctx, http.MethodPost, "/"+url.PathEscape(index)+"/_mget?_source=false&filter_path=docs._id,docs.found,docs.error.type,docs.error.reason",
		"application/json", "", bytesBody(appendIDs(nil, records, of)))
	if t == nil && res.status != http.StatusOK {
		_, t = ofRequest(res.status, res.body(), 0, e.cfg.unauthorized())
		if res.status == http.StatusForbidden {
			t.text += "; and to read them, so that what was sent without an answer can be looked for"
		}
	}
	var there []bool
	if t == nil {
		there, t = ofDocs(res.body(), records, of)
	}
	if res != nil {
		res.free()
	}
	if t != nil {
		t.text = "look for records in " + index + ": " + t.text
		t.unsure, t.tooLarge = false, false // nothing was sent
	}
	return there, t
}

// ofDocs reads an answer to _mget of these records.
func ofDocs(body []byte, records []Record, of []int) ([]bool, *trouble) {
	var answer struct {
		Docs []struct {
			ID    string          `json:"_id"`
			Found *bool           `json:"found"`
			Error json.RawMessage `json:"error"`
		} `json:"docs"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, &trouble{text: fmt.Sprintf("the answer to _mget is not understood (%v): %s", err, clip(string(body)))}
	}
	if len(answer.Docs) != len(of) {
		return nil, &trouble{text: fmt.Sprintf("the answer to _mget has %d documents for %d records", len(answer.Docs), len(of))}
	}
	there := make([]bool, len(of))
	for k, doc := range answer.Docs {
		if doc.ID != validUTF8(records[of[k]].ID) {
			return nil, &trouble{text: fmt.Sprintf("the answer to _mget has document %s in the place of %s", clip(doc.ID), clip(records[of[k]].ID))}
		}
		switch f := failureIn(doc.Error); {
		case doc.Found != nil:
			there[k] = *doc.Found
		case f.kind == "index_not_found_exception": // its life is over
		default:
			return nil, &trouble{text: "a document of the answer to _mget is neither found nor missing: " + f.text}
		}
	}
	return there, nil
}

// validUTF8 is how a text comes back from JSON.
func validUTF8(s string) string { return string([]rune(s)) }
