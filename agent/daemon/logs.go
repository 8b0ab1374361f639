package daemon

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"nines/agent/logs"
	"nines/agent/pods"
	"nines/agent/ship"
	"nines/pkg/ops"
)

// Logs says which logs are followed and where their records go. Each destination
// has a reader and checkpoints of its own, so that one that is away does not hold
// up the others.
type Logs struct {
	Namespace    string        `yaml:"namespace"` // the last part of data streams; empty: the cluster
	Names        logs.Names    `yaml:"names"`     // of the metadata of pods: ecs (empty: that) or otel
	Sources      []logs.Source `yaml:"sources"`   // empty: no logs are followed
	Destination  *Destination  `yaml:"destination"`
	Destinations []Destination `yaml:"destinations"` // instead of one; neither: a folder
}

// Destination is where records go: one of files and elasticsearch.
type Destination struct {
	Name          string                    `yaml:"name"` // empty: that of its kind
	Files         *ship.FilesConfig         `yaml:"files"`
	Elasticsearch *ship.ElasticsearchConfig `yaml:"elasticsearch"`
	// Spool bounds the copies of rotated files that wait for the destination;
	// 0: none are made.
	Spool ops.Size `yaml:"spool"`
}

func (d Destination) kind() string {
	if d.Elasticsearch != nil {
		return "elasticsearch"
	}
	return "files"
}

// files is the folder that records go to, with its bounds.
func (d Destination) files() ship.FilesConfig {
	if d.Files != nil {
		return *d.Files
	}
	return ship.DefaultFiles()
}

// all are the destinations, each with its name.
func (l Logs) all() []Destination {
	all := slices.Clone(l.Destinations)
	if l.Destination != nil {
		all = append(all, *l.Destination)
	}
	if len(all) == 0 {
		all = []Destination{{}}
	}
	for i := range all {
		if all[i].Name == "" {
			all[i].Name = all[i].kind()
		}
	}
	return all
}

// containers says whether logs of containers are followed.
func (l Logs) containers() bool { return slices.ContainsFunc(l.Sources, logs.Source.Containers) }

// sourcesOf are the sources whose records go to a destination.
func (l Logs) sourcesOf(name string) []logs.Source {
	var out []logs.Source
	for _, s := range l.Sources {
		if len(s.To) == 0 || slices.Contains(s.To, name) {
			out = append(out, s)
		}
	}
	return out
}

func defaultLogs() Logs {
	return Logs{Sources: []logs.Source{{Type: "files", Paths: []string{"/var/log/*.log"}}}}
}

// Validate names the key that is wrong, and the remedy.
func (l Logs) Validate() error {
	if l.Destination != nil && len(l.Destinations) > 0 {
		return errors.New("logs.destination stands beside logs.destinations: move it into the list")
	}
	if l.Names != "" && l.Names != logs.ECS && l.Names != logs.OTel {
		return fmt.Errorf("logs.names is %q: choose %s or %s", l.Names, logs.ECS, logs.OTel)
	}
	var names []string
	folders := map[string]string{} // to the destination that writes there
	for i, d := range l.all() {
		key := "logs.destination"
		if len(l.Destinations) > 0 {
			key = fmt.Sprintf("logs.destinations[%d]", i)
		}
		switch {
		case d.Files != nil && d.Elasticsearch != nil:
			return fmt.Errorf("%s has both files and elasticsearch: keep one, or make two of it in logs.destinations", key)
		case slices.Contains(names, d.Name):
			return fmt.Errorf("%s.name %q is taken: give each destination a name of its own", key, d.Name)
		case strings.Trim(d.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || len(d.Name) > 63:
			return fmt.Errorf("%s.name %q: use up to 63 of a to z, 0 to 9 and -, since a folder is named after it", key, d.Name)
		}
		if d.Elasticsearch == nil {
			dir, err := filepath.Abs(d.files().Directory)
			if err != nil {
				return fmt.Errorf("%s.files.directory: %w", key, err)
			}
			if other := folders[dir]; other != "" {
				return fmt.Errorf("%s.files.directory %s is that of %s, too: give each a folder of its own", key, d.files().Directory, other)
			}
			folders[dir] = d.Name
		}
		names = append(names, d.Name)
		var err error
		if d.Elasticsearch != nil {
			err = d.Elasticsearch.Validate()
		} else {
			err = d.files().Validate()
		}
		if err != nil {
			return fmt.Errorf("%s.%s.%w", key, d.kind(), err)
		}
	}
	for i, s := range l.Sources {
		if err := s.Validate(); err != nil {
			return fmt.Errorf("logs.sources[%d].%w", i, err)
		}
		for j, to := range s.To {
			if !slices.Contains(names, to) {
				return fmt.Errorf("logs.sources[%d].to[%d] %q is no destination: there is %s", i, j, to, strings.Join(names, ", "))
			}
		}
	}
	for _, name := range names {
		if len(l.Sources) > 0 && len(l.sourcesOf(name)) == 0 {
			return fmt.Errorf("logs.destinations: nothing goes to %q: name it in the to of a source, or remove it", name)
		}
	}
	return nil
}

// pipeline is the way of log records to one destination.
type pipeline struct {
	follower
	name string
	to   ship.Destination
}

type follower interface {
	Run(ctx context.Context) error
	Status() logs.Status
	Redrive(ctx context.Context) (sum ship.RedriveSum, ok bool, err error)
	Uses(namespace, name, uid string) bool
}

// pipelines are all of them, and the pods that they ask about.
type pipelines struct {
	all      []pipeline
	metadata *logs.Pods // nil: nobody asks, or there is no cluster
}

// Run follows, and then gives the destinations back.
func (p *pipelines) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	if p.metadata != nil {
		wg.Go(func() { p.metadata.Run(ctx) })
		wg.Go(func() { p.retain(ctx) })
	}
	errs := make([]error, len(p.all))
	for i, one := range p.all {
		wg.Go(func() {
			if errs[i] = errors.Join(one.Run(ctx), one.to.Close()); errs[i] != nil {
				errs[i] = fmt.Errorf("destination %s: %w", one.name, errs[i])
				stop()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// retain forgets pods that are gone when no destination needs them any more.
func (p *pipelines) retain(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.metadata.Retain(func(namespace, name, uid string) bool {
			return slices.ContainsFunc(p.all, func(one pipeline) bool { return one.Uses(namespace, name, uid) })
		})
	}
}

// newLogs returns nil where no logs are followed. The cluster may be nil: records
// of containers then carry what their path says.
func newLogs(cfg Config, c *cluster, log *slog.Logger, set *metrics.Set) (p *pipelines, err error) {
	if len(cfg.Logs.Sources) == 0 {
		return nil, nil
	}
	p = &pipelines{}
	defer func() {
		if err != nil {
			for _, one := range p.all {
				err = errors.Join(err, one.to.Close())
			}
		}
	}()
	if c != nil && cfg.Logs.containers() {
		folder := filepath.Join(cfg.State, "logs")
		if err := os.MkdirAll(folder, 0o750); err != nil {
			return p, ops.Remedy(fmt.Errorf("state: %w", err))
		}
		p.metadata = logs.NewPods(folder, log)
		c.pods.Add(p.metadata)
	}
	var ours []ship.FilesConfig // folders that we write to
	for _, d := range cfg.Logs.all() {
		ours = append(ours, ship.FilesConfig{Directory: cfg.deadLetters(d.Name)})
		if d.Elasticsearch == nil {
			ours = append(ours, d.files())
		}
	}
	for _, d := range cfg.Logs.all() {
		c := logs.DefaultConfig()
		c.Destination, c.Sources, c.Spool = d.Name, cfg.Logs.sourcesOf(d.Name), int64(d.Spool)
		c.Cluster, c.Namespace, c.Node, c.Version, c.Pods, c.Names = cfg.Cluster, cfg.Logs.Namespace, cfg.Node, ops.ReadBuild().Version, p.metadata, cfg.Logs.Names
		c.State = cfg.logState(d.Name)
		c.Skip = func(path string) bool {
			return slices.ContainsFunc(ours, func(f ship.FilesConfig) bool { return f.Owns(path) })
		}
		if err := os.MkdirAll(c.State, 0o750); err != nil {
			return p, ops.Remedy(fmt.Errorf("state: %w", err))
		}
		m := ship.NewMetrics(set, d.Name)
		var to ship.Destination
		if d.Elasticsearch != nil {
			e := *d.Elasticsearch
			e.State, e.DeadLetters = c.State, cfg.deadLetters(d.Name)
			e.Agent = "nines-agent/" + c.Version
			to, err = ship.NewElasticsearch(e, log.With("destination", d.Name), m)
		} else {
			to, err = ship.NewFiles(d.files(), log.With("destination", d.Name), m)
		}
		if err != nil {
			return p, fmt.Errorf("logs destination %s: %w", d.Name, err)
		}
		f, err := logs.New(c, to, log, set)
		if err != nil {
			return p, errors.Join(fmt.Errorf("logs destination %s: %w", d.Name, err), to.Close())
		}
		p.all = append(p.all, pipeline{f, d.Name, to})
	}
	return p, nil
}

// logState is the folder of what a destination's records came to.
func (c Config) logState(destination string) string {
	return filepath.Join(c.State, "logs", destination)
}

func (c Config) deadLetters(destination string) string {
	return filepath.Join(c.logState(destination), "dead-letters")
}

func (d *Daemon) answer(w http.ResponseWriter, status int, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(data, '\n')); err != nil {
		d.log.Debug("a reader went away", "error", err)
	}
}

// serveRedrive sends dead letters again. Only who is on the node may ask for it,
// and no page of a browser can: it would have to know the header.
func (d *Daemon) serveRedrive(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() || r.Header.Get(RedriveHeader) == "" {
		http.Error(w, "dead letters are sent again for callers on this node alone: run nines-agent redrive there", http.StatusForbidden)
		return
	}
	// Many letters take longer than any page.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	only := r.URL.Query().Get("destination")
	out := []Redriven{}
	if d.logs != nil {
		for _, one := range d.logs.all {
			if only != "" && only != one.name {
				continue
			}
			sum, ok, err := one.Redrive(r.Context())
			if !ok {
				continue
			}
			result := Redriven{one.name, sum.Stored + sum.AlreadyStored, sum.RefusedAgain, sum.Unreadable, ""}
			if err != nil {
				result.Error = err.Error()
			}
			out = append(out, result)
		}
	}
	if len(out) == 0 {
		http.Error(w, strings.TrimSpace("no destination keeps dead letters "+only), http.StatusNotFound)
		return
	}
	d.answer(w, http.StatusOK, out)
}

// explainLogs says what is followed on this host and what cannot be.
func explainLogs(cfg Config, do, not func(string, ...any)) {
	if len(cfg.Logs.Sources) == 0 {
		do("follow no logs, because logs.sources is empty")
		return
	}
	for _, s := range cfg.Logs.Sources {
		explainSource(cfg, s, do, not)
	}
	for _, d := range cfg.Logs.all() {
		if d.Spool > 0 {
			do("keep copies of rotated files for %s in %s while it is away, up to %v", d.Name, filepath.Join(cfg.logState(d.Name), "spool"), d.Spool)
		}
		if d.Elasticsearch != nil {
			do("keep what %s refuses for good in %s, for nines-agent redrive", d.Name, cfg.deadLetters(d.Name))
			explainElasticsearch(cfg, d, do, not)
			continue
		}
		files := d.files()
		do("write log records to %s, up to %d MiB as NDJSON; the oldest are removed beyond that", files.Directory, files.MaxBytes()>>20)
		if len(cfg.Logs.all()) == 1 {
			not("make log records searchable: no Elasticsearch is configured (logs.destination.elasticsearch)")
		}
	}
}

func explainSource(cfg Config, s logs.Source, do, not func(string, ...any)) {
	readable, refused, first := 0, 0, ""
	found, _ := s.Files()
	for _, path := range found {
		owned := slices.ContainsFunc(cfg.Logs.all(), func(d Destination) bool { return d.Elasticsearch == nil && d.files().Owns(path) })
		if info, err := os.Stat(path); owned || err == nil && !info.Mode().IsRegular() {
			continue
		}
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
	what := "log files"
	if s.Containers() {
		what = "logs of containers"
	}
	if readable+refused == 0 {
		not("find a log at %v yet: no file matches; one that appears is followed", s.Patterns())
	}
	if s.Containers() {
		if _, err := pods.Find(); err != nil {
			not("add labels and owners of pods to records: %v", err)
		}
	}
	begin := map[string]string{
		"": "from their beginning", logs.FromBeginning: "from their beginning", logs.FromEnd: "from where they end at each start, if they are new then",
		logs.FromCheckpoint: "from where they end at the first start",
	}[s.From]
	do("follow %s, %s: %d are there now", what, begin, readable)
	if refused > 0 {
		not("read %d %s such as %s: this user has no permission; add the user to the files' group (often adm)", refused, what, first)
	}
}

func explainElasticsearch(cfg Config, d Destination, do, not func(string, ...any)) {
	es := d.Elasticsearch
	for _, s := range es.URLs {
		u, err := url.Parse(s)
		if err != nil {
			continue // Validate has told
		}
		var streams []string
		for _, s := range cfg.Logs.sourcesOf(d.Name) {
			if name := s.Stream(cmp.Or(cfg.Logs.Namespace, cfg.Cluster)); !slices.Contains(streams, name) {
				streams = append(streams, name)
			}
		}
		do("ship log records to %s, data stream %s", u.Redacted(), strings.Join(streams, " and "))
		if err := reachable(u); err != nil {
			not("reach %s at this moment: %v; until it answers, records wait in their files", u.Redacted(), ops.Remedy(err))
		}
	}
	for key, path := range map[string]string{
		"password_file": es.PasswordFile, "api_key_file": es.APIKeyFile, "token_file": es.TokenFile,
		"ca_file": es.CAFile, "cert_file": es.CertFile, "key_file": es.KeyFile,
	} {
		if path == "" {
			continue
		}
		if _, err := os.ReadFile(path); err != nil {
			not("use %s of the destination %s: %v", key, d.Name, ops.Remedy(err))
		}
	}
}
