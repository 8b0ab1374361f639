package ship

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func plainBody(records []Record, chunk []int) (want []byte) {
	for _, i := range chunk {
		want = append(append(appendAction(want, records[i]), records[i].Doc...), '\n')
	}
	return want
}

func TestBodyWithoutCompressionIsThatOfTheRecordsHoweverItIsRead(t *testing.T) {
	records := recordsOf("a", `odd "\`+"\x00\xff\u2028é", "", strings.Repeat("\x01", 300), "b")
	records[1].Stream = `logs-"é"`
	records[4].Doc = []byte(`{"x":"` + strings.Repeat("y", 100_000) + `"}`)
	chunk := []int{0, 1, 3, 2, 4, 0, 4}
	want := plainBody(records, chunk)
	b := newRecordsBody(records, chunk)
	if b.size() != int64(len(want)) || b.begun() {
		t.Errorf("size %d, want %d; begun %v", b.size(), len(want), b.begun())
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, most := range []int{1, 7, 100, 1000, 32 << 10, 1 << 20} {
		r := b.open()
		var got []byte
		buf := make([]byte, most)
		for {
			n, err := r.Read(buf[:1+random.IntN(most)])
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("read by up to %d bytes it differs: %.200q", most, got)
		}
	}
	if !b.begun() {
		t.Error("it was read")
	}
	b.release()
	if _, err := b.open().Read(make([]byte, 1)); !errors.Is(err, errReleased) {
		t.Errorf("after its release: %v", err)
	}
}

// What has to be escaped may be six times as long as it looks.
func TestActionThatDoesNotFitIsReadInPieces(t *testing.T) {
	records := []Record{{Stream: "s", ID: strings.Repeat("\x01", 300), Doc: []byte(`{}`)}}
	b := newRecordsBody(records, []int{0})
	for _, size := range []int{400, 1000, 1840, 1850} {
		r, got, buf := b.open(), []byte(nil), make([]byte, size)
		for {
			n, err := r.Read(buf)
			if err == io.EOF {
				break
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, plainBody(records, []int{0})) {
			t.Errorf("by %d bytes it differs: %.100q", size, got)
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add("stream", "id", []byte(`{"x":1}`), uint16(5))
	f.Add("\xff", "\"\\\x00", []byte(``), uint16(0))
	f.Fuzz(func(t *testing.T, stream, id string, doc []byte, step uint16) {
		records := []Record{{Stream: stream, ID: id, Doc: doc}, {Stream: stream, ID: "b", Doc: doc}, {Stream: "s", ID: id, Doc: doc}}
		chunk := []int{2, 0, 1}
		b := newRecordsBody(records, chunk)
		var got []byte
		buf := make([]byte, int(step)+1)
		for r := b.open(); ; {
			n, err := r.Read(buf)
			got = append(got, buf[:n]...)
			if err == io.EOF {
				break
			}
		}
		if !slices.Equal(got, plainBody(records, chunk)) || b.size() != int64(len(got)) {
			t.Errorf("%q of size %d", got, b.size())
		}
	})
}

func TestWithoutCompressionTheBodyGoesAsItIs(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) { cfg.Compression = uncompressed }, func(t *testing.T, f *fixture) {
		f.ship(t, "a b", sent(Stored, 2)...)
		golden(t, "bulk-uncompressed.request", f.cluster.requests("/_bulk")[0].page(t))
		if got := f.m.bytes.Get(); got != uint64(len(f.cluster.requests("/_bulk")[0].body)) {
			t.Errorf("%d bytes sent", got)
		}
	})
}

// The records are the caller's again when Ship comes back, also where the
// answer came before the body was read.
func TestRecordsAreNotReadAfterShipCameBack(t *testing.T) {
	withCluster(t, func(cfg *ElasticsearchConfig) { cfg.Compression = uncompressed }, func(t *testing.T, f *fixture) {
		large := recordsOf("large")
		large[0].Doc = append(append([]byte(`{"x":"`), noise(1<<20)...), `"}`...)
		f.cluster.early = func(w http.ResponseWriter, r *http.Request) bool {
			if r.ContentLength < 1<<19 {
				return false
			}
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			w.(http.Flusher).Flush()
			return true
		}
		got, err := f.Ship(t.Context(), large)
		if err != nil || got[0] != DeadLettered {
			t.Errorf("%v, %v", got, err)
		}
		clear(large[0].Doc) // the race detector would see a reader
		f.cluster.early = nil
		f.ship(t, "a", Stored)
	})
}

func TestBufferOfARequestIsUsedAgainOnlyWhenNobodyReadsIt(t *testing.T) {
	records := recordsOf("a", "b")
	p := newPacked(records, []int{0, 1})
	first, second := p.open(), p.open()
	p.release()
	want := bytes.Clone(p.buf.Bytes())
	first.Close()
	first.Close() // net/http may
	for range 10 {
		q := newPacked(records, []int{1})
		if q == p {
			t.Fatal("it is used again while it is read")
		}
		q.release()
	}
	if got, err := io.ReadAll(second); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	second.Close()
}
