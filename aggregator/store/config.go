package store

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// MaxAhead is how far a sample may lie ahead of the receiver's clock (R2).
const MaxAhead = 90 * time.Second

const (
	minBlock    = 2 * time.Hour
	maxMaxBlock = 31 * 24 * time.Hour
	bulkBlock   = 24 * time.Hour
	// minRetention is what open minutes need to be rebuilt at a start (R19).
	minRetention = 3 * time.Hour
)

// Config says where raw samples lie, for how long, and what a request may cost.
type Config struct {
	// Dir is the folder of the store. The process that opens it holds it alone.
	Dir string `yaml:"-"`
	// Retention is how long samples are kept: at least 3 h.
	Retention time.Duration `yaml:"retention"`
	// RetentionSize bounds blocks and logs together, in bytes; the oldest block
	// goes first. 0 is no bound. Not under 128 MiB: what the newest hours need
	// is never deleted.
	RetentionSize int64 `yaml:"retention_size"`
	// MinFree is how many bytes of the disk are left alone: with less, samples
	// are refused with 503 until there is space again. The database sets aside
	// 128 MiB for a file and panics where it can't.
	MinFree int64 `yaml:"min_free"`
	// OutOfOrder is how much older than the newest sample of the store a late
	// one may be: 0 (none) up to Retention. Give it the age that an agent's
	// queue may reach.
	OutOfOrder time.Duration `yaml:"out_of_order"`

	// MaxBody bounds a remote-write body as sent, in bytes.
	MaxBody int64 `yaml:"max_body"`
	// MaxDecodedBody bounds it after decompression: at most 32 MiB.
	MaxDecodedBody int64 `yaml:"max_decoded_body"`

	// QueryTimeout ends a query; QueryMaxSamples is how many samples one may
	// hold in memory; QueryConcurrency is how many run at once, others wait.
	QueryTimeout     time.Duration `yaml:"query_timeout"`
	QueryMaxSamples  int           `yaml:"query_max_samples"`
	QueryConcurrency int           `yaml:"query_concurrency"`
	// Lookback is for how long a series without a new sample has a value.
	Lookback time.Duration `yaml:"lookback"`
	// CORSOrigin is a regular expression of origins whose pages may read the
	// API from a browser; empty allows none.
	CORSOrigin string `yaml:"cors_origin"`

	// MaxExemplars bounds the exemplars kept in memory; the oldest goes first.
	MaxExemplars int64 `yaml:"max_exemplars"`
	// MaxMetadata bounds the metric names whose type, unit and help are kept in
	// memory; further names are counted and left out.
	MaxMetadata int `yaml:"max_metadata"`

	// Limits bounds what one cluster, namespace or sender may use.
	Limits Limits `yaml:"limits"`

	// Bulk is for a folder that a command fills and throws away, as replay does:
	// no log is written, so that nothing in memory survives the process and
	// Commit returns without a sync. All else is the same: order, refusals and
	// hooks. Nothing that such a store holds may be acknowledged to anybody, and
	// it must not be opened with Bulk after it was without.
	Bulk bool `yaml:"-"`

	// Now is the receiver's clock; nil is time.Now.
	Now func() time.Time `yaml:"-"`
}

// DefaultConfig keeps 15 days in ./nines-data/metrics and takes samples up to
// a day late.
func DefaultConfig() Config {
	return Config{
		Dir:              "nines-data/metrics",
		Retention:        15 * 24 * time.Hour,
		MinFree:          256 << 20,
		OutOfOrder:       24 * time.Hour,
		MaxBody:          8 << 20,
		MaxDecodedBody:   32 << 20,
		QueryTimeout:     2 * time.Minute,
		QueryMaxSamples:  50_000_000,
		QueryConcurrency: 8,
		Lookback:         5 * time.Minute,
		CORSOrigin:       ".*",
		MaxExemplars:     10_000,
		MaxMetadata:      20_000,
		Limits:           DefaultLimits(),
	}
}

// Validate returns all mistakes, each with the field and the remedy.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Dir == "" {
		bad("store folder is empty: name the folder that holds the samples")
	}
	if c.Retention < minRetention {
		bad("retention is %s: give at least %s, which open minutes need after a restart", c.Retention, minRetention)
	}
	if c.RetentionSize < 0 || c.RetentionSize > 0 && c.RetentionSize < 128<<20 {
		bad("retention_size is %d bytes: give 0 (no bound) or at least %d", c.RetentionSize, 128<<20)
	}
	if c.MinFree < 0 {
		bad("min_free is %d bytes: give 0 (use the disk up) or more", c.MinFree)
	}
	if c.OutOfOrder < 0 || c.OutOfOrder > c.Retention {
		bad("out_of_order is %s: give 0 to %s, the retention", c.OutOfOrder, c.Retention)
	}
	if c.MaxBody < 1<<10 {
		bad("max_body is %d bytes: give at least 1024", c.MaxBody)
	}
	if c.MaxDecodedBody < 1<<10 || c.MaxDecodedBody > 32<<20 {
		bad("max_decoded_body is %d bytes: give 1024 to %d", c.MaxDecodedBody, 32<<20)
	}
	if c.QueryTimeout <= 0 {
		bad("query_timeout is %s: give more than 0, such as 2m", c.QueryTimeout)
	}
	if c.Lookback <= 0 {
		bad("lookback is %s: give more than 0, such as 5m", c.Lookback)
	}
	for _, x := range []struct {
		name string
		n    int
	}{{"query_max_samples", c.QueryMaxSamples}, {"query_concurrency", c.QueryConcurrency}, {"max_metadata", c.MaxMetadata}} {
		if x.n < 1 {
			bad("%s is %d: give at least 1", x.name, x.n)
		}
	}
	if c.MaxExemplars < 0 {
		bad("max_exemplars is %d: give 0 (keep none) or more", c.MaxExemplars)
	}
	if err := c.Limits.Validate(); err != nil {
		errs = append(errs, err)
	}
	if _, err := regexp.Compile("^(?:" + c.CORSOrigin + ")$"); err != nil {
		bad("cors_origin is not a regular expression: %w", err)
	}
	return errors.Join(errs...)
}

// maxBlockDuration is a tenth of the retention, so that deleting the oldest
// block frees no more than that, within what the database handles well.
func (c Config) maxBlockDuration() time.Duration {
	return max(minBlock, min(c.Retention/10, maxMaxBlock))
}
