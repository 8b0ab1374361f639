package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/logs"
	"nines/agent/ship"
	"nines/pkg/ops"
)

// Logs says which logs are followed and where their records go.
type Logs struct {
	Sources     []logs.Source `yaml:"sources"` // empty: no logs are followed
	Destination Destination   `yaml:"destination"`
}

// Destination is where records go: one of the two. Neither is a folder.
type Destination struct {
	Files         *ship.FilesConfig         `yaml:"files"`
	Elasticsearch *ship.ElasticsearchConfig `yaml:"elasticsearch"`
}

// files is the folder that records go to, with its bounds.
func (d Destination) files() ship.FilesConfig {
	c := ship.DefaultFiles()
	if d.Files != nil {
		c.Directory = d.Files.Directory
	}
	return c
}

func defaultLogs() Logs {
	return Logs{Sources: []logs.Source{{Type: "files", Paths: []string{"/var/log/*.log"}}}}
}

// Validate names the key that is wrong, and the remedy.
func (l Logs) Validate() error {
	for i, s := range l.Sources {
		if err := s.Validate(); err != nil {
			return fmt.Errorf("logs.sources[%d].%w", i, err)
		}
	}
	d := l.Destination
	if d.Files != nil && d.Elasticsearch != nil {
		return errors.New("logs.destination has both files and elasticsearch: keep one")
	}
	if d.Elasticsearch != nil {
		if err := d.Elasticsearch.Validate(); err != nil {
			return fmt.Errorf("logs.destination.elasticsearch.%w", err)
		}
		return nil
	}
	if err := d.files().Validate(); err != nil {
		return fmt.Errorf("logs.destination.files.%w", err)
	}
	return nil
}

// shipper is logs and their destination as one part of the agent.
type shipper struct {
	*logs.Follower
	to ship.Destination
}

// Run follows, and then gives the destination back.
func (s shipper) Run(ctx context.Context) error {
	return errors.Join(s.Follower.Run(ctx), s.to.Close())
}

// newLogs returns nil where no logs are followed.
func newLogs(cfg Config, log *slog.Logger, set *metrics.Set) (stage, error) {
	if len(cfg.Logs.Sources) == 0 {
		return nil, nil
	}
	c := logs.DefaultConfig()
	c.Sources, c.Cluster, c.Node, c.Version = cfg.Logs.Sources, cfg.Cluster, cfg.Node, ops.ReadBuild().Version
	c.State = filepath.Join(cfg.State, "logs")
	if err := os.MkdirAll(c.State, 0o750); err != nil {
		return nil, ops.Remedy(fmt.Errorf("state: %w", err))
	}
	m := ship.NewMetrics(set, "elasticsearch")
	var to ship.Destination
	var err error
	if es := cfg.Logs.Destination.Elasticsearch; es != nil {
		e := *es
		e.DeadLetters = filepath.Join(cfg.State, "dead-letters")
		e.Agent = "nines-agent/" + c.Version
		c.Skip = ship.FilesConfig{Directory: e.DeadLetters}.Owns
		if to, err = ship.NewElasticsearch(e, log, m); err != nil {
			return nil, fmt.Errorf("logs.destination.elasticsearch.%w", err)
		}
	} else {
		files := cfg.Logs.Destination.files()
		c.Skip = files.Owns
		if to, err = ship.NewFiles(files, log, m); err != nil {
			return nil, fmt.Errorf("logs.destination.files: %w", err)
		}
	}
	for _, s := range c.Sources {
		if !s.Containers() {
			continue
		}
		// Without access records carry what their path says.
		pods, err := logs.NewPods(cfg.Node, c.State, log)
		if err != nil && !errors.Is(err, logs.ErrNoCluster) {
			log.Warn("records of pods carry no labels", "error", err)
		}
		c.Pods = pods
		break
	}
	f, err := logs.New(c, to, log, set)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("logs: %w", err), to.Close())
	}
	return shipper{f, to}, nil
}

// explainLogs says what is followed on this host and what cannot be.
func explainLogs(cfg Config, do, not func(string, ...any)) {
	if len(cfg.Logs.Sources) == 0 {
		do("follow no logs, because logs.sources is empty")
		return
	}
	files := cfg.Logs.Destination.files()
	readable, refused, first := 0, 0, ""
	for _, s := range cfg.Logs.Sources {
		matched := 0
		for _, path := range s.Files() {
			if info, err := os.Stat(path); files.Owns(path) || err == nil && !info.Mode().IsRegular() {
				continue
			}
			matched++
			f, err := os.Open(path)
			switch {
			case err == nil:
				readable++
				_ = f.Close() // nothing was written
			case errors.Is(err, fs.ErrPermission):
				if refused++; first == "" {
					first = path
				}
			}
		}
		if matched == 0 {
			not("find a log at %v yet: no file matches; one that appears is followed", s.Paths)
		}
	}
	do("follow %d log files, from their beginning", readable)
	if refused > 0 {
		not("read %d log files such as %s: this user has no permission; add the user to the files' group (often adm)", refused, first)
	}
	not("read the journal: files are the only source so far")
	es := cfg.Logs.Destination.Elasticsearch
	if es == nil {
		do("write log records to %s, up to %d MiB as NDJSON; the oldest are removed beyond that", files.Directory, files.MaxBytes()>>20)
		not("make log records searchable: no Elasticsearch is configured (logs.destination.elasticsearch)")
		return
	}
	for _, s := range es.URLs {
		u, err := url.Parse(s)
		if err != nil {
			continue // Validate has told
		}
		do("ship log records to %s, data stream %s", u.Redacted(), ship.StreamOfFiles(cfg.Cluster))
		if err := reachable(u); err != nil {
			not("reach %s at this moment: %v; until it answers, records wait in their files", u.Redacted(), ops.Remedy(err))
		}
	}
	for key, path := range map[string]string{"password_file": es.PasswordFile, "ca_file": es.CAFile} {
		if path == "" {
			continue
		}
		if _, err := os.ReadFile(path); err != nil {
			not("use logs.destination.elasticsearch.%s: %v", key, ops.Remedy(err))
		}
	}
}
