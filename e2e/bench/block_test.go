//go:build e2e

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// past is one series of a history. samples hands over those that come next and
// lie before the given time, in order; it is called once for each block.
type past struct {
	labels  labels.Labels
	samples func(before int64, add func(t int64, v float64))
}

const (
	// blockSpan is the longest block that Prometheus itself makes where it
	// keeps a month: 2 h times a power of 3, at most a tenth of its retention.
	blockSpan = 54 * time.Hour
	// chunkSamples is the length of Prometheus' own chunks.
	chunkSamples = 120
)

// writeBlocks writes a history as blocks of a Prometheus TSDB that end at the
// given time, without a head in between: a month of 2,000 series takes less
// than a minute and next to no memory. It returns the number of samples.
func writeBlocks(dir string, from, to int64, series []past) (samples uint64, err error) {
	slices.SortFunc(series, func(a, b past) int { return labels.Compare(a.labels, b.labels) })
	for span := blockSpan.Milliseconds(); from < to; {
		next := min(to, from-from%span+span)
		n, err := writeBlock(dir, from, next, series)
		if err != nil {
			return 0, fmt.Errorf("write the block from %s: %w", time.UnixMilli(from).UTC().Format(time.RFC3339), err)
		}
		samples += n
		from = next
	}
	return samples, nil
}

// blockMeta is meta.json of a block.
type blockMeta struct {
	ID         string          `json:"ulid"`
	MinTime    int64           `json:"minTime"` // milliseconds
	MaxTime    int64           `json:"maxTime"`
	Stats      tsdb.BlockStats `json:"stats"`
	Compaction struct {
		Level   int      `json:"level"`
		Sources []string `json:"sources"`
	} `json:"compaction"`
	Version int `json:"version"`
}

func writeBlock(root string, from, to int64, series []past) (samples uint64, err error) {
	// A ULID has 26 digits of a base 32 that begins as hexadecimal does.
	id := fmt.Sprintf("01%08X%016X", rand.Uint32(), from)
	dir := filepath.Join(root, id)
	chunkWriter, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		return 0, err
	}
	defer func() {
		if chunkWriter != nil {
			err = errors.Join(err, chunkWriter.Close())
		}
	}()
	indexWriter, err := index.NewWriter(context.Background(), filepath.Join(dir, "index"))
	if err != nil {
		return 0, err
	}
	defer func() {
		if indexWriter != nil {
			err = errors.Join(err, indexWriter.Close())
		}
	}()
	symbols := map[string]bool{}
	for _, s := range series {
		s.labels.Range(func(l labels.Label) { symbols[l.Name], symbols[l.Value] = true, true })
	}
	for _, s := range slices.Sorted(maps.Keys(symbols)) {
		if err := indexWriter.AddSymbol(s); err != nil {
			return 0, err
		}
	}
	meta := blockMeta{ID: id, MinTime: from, MaxTime: to, Version: 1}
	meta.Compaction.Level, meta.Compaction.Sources = 1, []string{id}
	for i, s := range series {
		metas := chunksOf(s, to, &meta.Stats)
		if len(metas) == 0 {
			continue
		}
		if err := chunkWriter.WriteChunks(metas...); err != nil {
			return 0, err
		}
		if err := indexWriter.AddSeries(storage.SeriesRef(i+1), s.labels, metas...); err != nil {
			return 0, err
		}
	}
	text, err := json.MarshalIndent(meta, "", "\t")
	if err != nil {
		return 0, err
	}
	err = errors.Join(chunkWriter.Close(), indexWriter.Close())
	chunkWriter, indexWriter = nil, nil
	return meta.Stats.NumSamples, errors.Join(err, os.WriteFile(filepath.Join(dir, "meta.json"), text, 0o644))
}

// chunksOf encodes the samples of one series of one block.
func chunksOf(s past, to int64, stats *tsdb.BlockStats) []chunks.Meta {
	var metas []chunks.Meta
	var app chunkenc.Appender
	left := 0
	s.samples(to, func(t int64, v float64) {
		if left == 0 {
			chunk := chunkenc.NewXORChunk()
			a, err := chunk.Appender()
			if err != nil {
				panic(err) // an empty chunk always has one
			}
			app, left = a, chunkSamples
			metas = append(metas, chunks.Meta{Chunk: chunk, MinTime: t})
		}
		app.Append(0, t, v)
		metas[len(metas)-1].MaxTime = t
		left--
		stats.NumSamples++
		stats.NumFloatSamples++
	})
	if len(metas) > 0 {
		stats.NumSeries++
		stats.NumChunks += uint64(len(metas))
	}
	return metas
}

// linkBlocks gives a server a folder of its own with the same blocks: a block's
// files are never changed, so they are linked and not copied.
func linkBlocks(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
}
