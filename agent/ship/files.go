package ship

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"nines/pkg/ops"
)

// FilesConfig is a folder of NDJSON, for hosts without an Elasticsearch. What
// is 0 has its default.
type FilesConfig struct {
	Directory string `yaml:"directory"`

	// FileBytes bounds one file, Files how many are kept: beyond them the
	// oldest is removed. The defaults keep 256 MiB.
	FileBytes ops.Size `yaml:"max_file_size"`
	Files     int      `yaml:"max_files"`
}

const (
	defaultFileBytes = 32 << 20
	defaultFiles     = 8
)

// DefaultFiles writes below the working directory.
func DefaultFiles() FilesConfig {
	return FilesConfig{Directory: "./nines-logs"}.withDefaults()
}

func (c FilesConfig) withDefaults() FilesConfig {
	c.FileBytes = cmp.Or(c.FileBytes, defaultFileBytes)
	c.Files = cmp.Or(c.Files, defaultFiles)
	return c
}

// MaxBytes is about what the folder may take, in bytes.
func (c FilesConfig) MaxBytes() int64 {
	c = c.withDefaults()
	return int64(c.FileBytes) * int64(c.Files)
}

// Validate names the key that is wrong, and the remedy.
func (c FilesConfig) Validate() error {
	switch {
	case c.Directory == "":
		return errors.New("directory is empty: name a folder")
	case c.FileBytes < 0:
		return fmt.Errorf("max_file_size is %v: give a size above 0, such as 32MiB", c.FileBytes)
	case c.Files < 0:
		return fmt.Errorf("max_files is %d: keep at least 1 file", c.Files)
	}
	return nil
}

// Owns says whether path is one of the files that this destination writes, so
// that nobody follows them and ships them again without end.
func (c FilesConfig) Owns(path string) bool {
	ours, err := filepath.Abs(c.Directory)
	if err != nil {
		return false
	}
	theirs, err := filepath.Abs(path)
	return err == nil && filepath.Dir(theirs) == ours && filepath.Ext(theirs) == ndjsonSuffix
}

// Files writes records as NDJSON, each with its ID as "_id" in front: a record
// that was written before a crash and not acknowledged is there twice under
// one _id.
type Files struct {
	book *book
	hold hold
}

// NewFiles opens the folder. It creates it where it is missing.
func NewFiles(cfg FilesConfig, log *slog.Logger, m *Metrics) (*Files, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	b, err := openBook(&book{
		dir: cfg.Directory, prefix: "nines-logs", fileBytes: int64(cfg.FileBytes), files: cfg.Files, log: log,
		dropped: func(lines int) { m.removed.Add(lines) },
	})
	if err != nil {
		return nil, ops.Remedy(err)
	}
	f := &Files{book: b, hold: hold{log: log, where: cfg.Directory}}
	m.holds(&f.hold)
	return f, nil
}

// Ship writes and syncs all records at once.
func (f *Files) Ship(ctx context.Context, records []Record) ([]Verdict, error) {
	var lines []byte
	for _, r := range records {
		lines = append(lines, `{"_id":`...)
		lines = appendString(lines, r.ID)
		if len(r.Doc) > 2 {
			lines = append(lines, ',')
		}
		lines = append(append(lines, r.Doc[1:]...), '\n')
	}
	verdicts := make([]Verdict, len(records))
	var wait backoff
	defer f.hold.leave(&wait)
	for {
		err := f.book.add(lines)
		if err == nil {
			f.hold.set(&wait, "")
			for i := range verdicts {
				verdicts[i] = Stored
			}
			return verdicts, nil
		}
		if errors.Is(err, os.ErrClosed) {
			return verdicts, err
		}
		f.hold.set(&wait, ops.Remedy(err).Error())
		if err := wait.pause(ctx, 0); err != nil {
			return verdicts, err
		}
	}
}

// Hold implements Destination.
func (f *Files) Hold() string { return f.hold.String() }

// Close implements Destination.
func (f *Files) Close() error { return f.book.Close() }
