package daemon

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/VictoriaMetrics/metrics"
)

// Logs says which logs are followed and where their records go.
type Logs struct {
	Sources     []Source    `yaml:"sources"` // empty: no logs are followed
	Destination Destination `yaml:"destination"`
}

// Source is a kind of log.
type Source struct {
	Type    string   `yaml:"type"`    // "files"
	Paths   []string `yaml:"paths"`   // patterns such as /var/log/*.log
	Exclude []string `yaml:"exclude"` // patterns of paths to leave out
}

// Destination is where records go: one of the two. Neither is a folder.
type Destination struct {
	Files         *Files         `yaml:"files"`
	Elasticsearch *Elasticsearch `yaml:"elasticsearch"`
}

// Files writes records as NDJSON, bounded and rotated.
type Files struct {
	Directory string `yaml:"directory"`
}

// Elasticsearch is a cluster that takes _bulk.
type Elasticsearch struct {
	URLs         []string `yaml:"urls"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	CAFile       string   `yaml:"ca_file"`
}

const defaultDirectory = "./nines-logs"

func defaultLogs() Logs {
	return Logs{Sources: []Source{{Type: "files", Paths: []string{"/var/log/*.log"}}}}
}

// Validate names the key that is wrong, and the remedy.
func (l Logs) Validate() error {
	for i, s := range l.Sources {
		if s.Type != "files" {
			return fmt.Errorf("logs.sources[%d].type is %q: files is the only one so far", i, s.Type)
		}
		if len(s.Paths) == 0 {
			return fmt.Errorf("logs.sources[%d].paths is empty: name at least one file or pattern, or remove the source", i)
		}
	}
	d := l.Destination
	if d.Files != nil && d.Elasticsearch != nil {
		return errors.New("logs.destination has both files and elasticsearch: keep one")
	}
	if d.Files != nil && d.Files.Directory == "" {
		return errors.New("logs.destination.files.directory is empty: name a folder")
	}
	if d.Elasticsearch != nil && len(d.Elasticsearch.URLs) == 0 {
		return errors.New("logs.destination.elasticsearch.urls is empty: name at least one address such as https://elasticsearch:9200")
	}
	return nil
}

func newLogs(cfg Config, log *slog.Logger, set *metrics.Set) (stage, error) { return nil, nil }

func explainLogs(cfg Config, do, not func(string, ...any)) {}
