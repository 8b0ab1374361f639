//go:build e2e

package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"nines/e2e/harness"
	"nines/e2e/parts"
	"nines/pkg/metric"
)

const (
	logLines = 2_000_000
	// criBytes is the length of the lines, framing and newline included.
	criBytes = 216
	// logContainers is how many containers they are of: two in each pod.
	logContainers = 10
)

// logFolder is what the kubelet would have below /var/log/pods.
type logFolder struct {
	root  string
	kube  *kube
	files []string
}

// writeFolder writes lines of every container, as a runtime has written them.
func writeFolder(t *testing.T, root string, k *kube, lines int) logFolder {
	t.Helper()
	f := logFolder{root: root, kube: k}
	kubelet := harness.NewKubelet(harness.KubeletConfig{Root: root, LineBytes: criBytes, RotateBytes: 1 << 40})
	total := 0
	for _, p := range k.pods {
		total += len(p.containers)
	}
	for _, p := range k.pods {
		for n, name := range p.containers {
			c, err := kubelet.Add(p.namespace, p.name, p.uid, name, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.files = append(f.files, c.Path())
			f.link(t, p, n, c.Path())
			for left := lines / total; left > 0; left -= min(left, 10_000) {
				if err := c.Write(min(left, 10_000)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	return f
}

// link makes the link that the kubelet makes in /var/log/containers.
func (f logFolder) link(t *testing.T, p kubePod, n int, path string) {
	t.Helper()
	dir := f.root + "-containers"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%s_%s_%s-%s.log", p.name, p.namespace, p.containers[n], p.containerID(n))
	if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// shipper starts a log shipper on a folder, on its core.
type shipper struct {
	name     string
	labelled bool // its records carry the labels of their pod
	start    func(t *testing.T, lab *harness.Lab, f logFolder, sink string) *harness.Process
}

// ours is the agent with the labels of pods, acknowledgements and synced
// checkpoints.
func ours(compression string) shipper {
	return shipper{"nines-agent", true, func(t *testing.T, lab *harness.Lab, f logFolder, sink string) *harness.Process {
		t.Helper()
		return startAgent(t, lab, f, "http://"+sink, compression).Process
	}}
}

func startAgent(t *testing.T, lab *harness.Lab, f logFolder, url, compression string) *harness.Agent {
	t.Helper()
	c := harness.AgentConfig{
		Cluster: "bench", Node: benchNode, Interval: time.Minute, Env: []string{"KUBECONFIG=" + f.kube.start(t, lab)},
		Logs: fmt.Sprintf("sources: [{type: kubernetes, root: %q}]\ndestination: {elasticsearch: {urls: [%q], compression: %s}}\n", f.root, url, compression),
	}
	if _, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 {
		core := agentCore
		c.Core = &core
	}
	return lab.Agent(c)
}

// filebeat is what moves its checkpoint by acknowledgement, too.
var filebeat = shipper{"Filebeat 7.17.0", false, func(t *testing.T, lab *harness.Lab, f logFolder, sink string) *harness.Process {
	t.Helper()
	config := lab.Write("filebeat/filebeat.yml", fmt.Sprintf(`filebeat.inputs:
- type: container
  paths: [%q]
  fields_under_root: true
  fields: {data_stream: {type: logs, dataset: kubernetes.container_logs, namespace: bench}, host: {name: %s}}
seccomp.enabled: false
setup: {template.enabled: false, ilm.enabled: false}
output.elasticsearch: {hosts: [%q], index: logs-kubernetes.container_logs-bench, bulk_max_size: 2048, worker: 1, compression_level: 0}
logging: {level: warning, to_stderr: true}
path: {data: %q, logs: %q}
`, f.root+"/*/*/*.log", benchNode, "http://"+sink, lab.Dir("filebeat/data"), lab.Dir("filebeat/logs")))
	path, args := pinned(agentCore, filepath.Join(part(t, lab, parts.Filebeat), "filebeat"), "-e", "-c", config)
	return lab.Start(harness.Command{Name: "filebeat", Path: path, Args: args, Dir: lab.Dir("filebeat")})
}}

// findRsyslog returns rsyslog with its Elasticsearch output, which is a package
// of its own in Debian.
func findRsyslog() (shipper, error) {
	rsyslogd, err := exec.LookPath("rsyslogd")
	if err != nil {
		return shipper{}, fmt.Errorf("%w: install the package rsyslog-elasticsearch", err)
	}
	if found, err := filepath.Glob("/usr/lib/*/rsyslog/omelasticsearch.so"); err != nil || len(found) == 0 {
		return shipper{}, errors.New("omelasticsearch is not installed: install the package rsyslog-elasticsearch")
	}
	return shipper{"rsyslog", false, func(t *testing.T, lab *harness.Lab, f logFolder, sink string) *harness.Process {
		t.Helper()
		host, port, _ := strings.Cut(sink, ":")
		var inputs strings.Builder
		for _, file := range f.files {
			fmt.Fprintf(&inputs, "input(type=\"imfile\" file=%q tag=\"bench:\" ruleset=\"ship\")\n", file)
		}
		config := fmt.Sprintf(`global(workDirectory=%q)
module(load="imfile")
module(load="omelasticsearch")
template(name="document" type="list") {
  constant(value="{\"@timestamp\":\"") property(name="timereported" dateFormat="rfc3339")
  constant(value="\",\"host\":{\"name\":\"%s\"},\"message\":\"") property(name="msg" format="json")
  constant(value="\"}")
}
%sruleset(name="ship" queue.type="linkedList" queue.dequeueBatchSize="2000") {
  action(type="omelasticsearch" server=%q serverport=%q searchIndex="bench" searchType="" bulkmode="on" template="document")
}
`, lab.Dir("rsyslog"), benchNode, inputs.String(), host, port)
		path, args := pinned(agentCore, rsyslogd, "-n", "-f", lab.Write("rsyslog.conf", config), "-i", filepath.Join(lab.Dir("rsyslog"), "pid"))
		return lab.Start(harness.Command{Name: "rsyslog", Path: path, Args: args})
	}}, nil
}

// shipAll measures one shipper from its start until the sink has all lines.
func shipAll(t *testing.T, f logFolder, s shipper) work {
	t.Helper()
	lab := harness.New(t)
	listen := startSink(t, lab)
	begun := time.Now()
	p := s.start(t, lab, f, listen)
	lab.Eventually(8*time.Minute, s.name+" ships all lines", func() error {
		records, _, err := received(listen)
		if err == nil && records < logLines {
			err = fmt.Errorf("%d of %d arrived", records, logLines)
		}
		return err
	})
	w := work{
		what: s.name, done: logLines, unit: "lines", took: time.Since(begun),
		cpu: cpuExact(t, p.PID()), peak: memory(t, p.PID(), "VmHWM"),
	}
	says := sinkSays(t, listen, false)
	p.Kill()
	lab.Say("%s: %s in %s of CPU and %s; %d records, %d with labels, %d bytes in %.0f each", s.name, w, w.cpu.Round(time.Millisecond), w.took.Round(time.Millisecond),
		says.Records, says.Labelled, says.Bytes, float64(says.Bytes)/float64(says.Records))
	if s.labelled && says.Labelled < says.Records*99/100 {
		t.Errorf("%d of %d records carry the labels of their pod", says.Labelled, says.Records)
	}
	return w
}

// shipLogs measures log shippers that have two million lines before them.
func shipLogs(t *testing.T) []row {
	f := writeFolder(t, filepath.Join(t.TempDir(), "pods"), podsOf(logContainers/2, 2), logLines)
	figure := fmt.Sprintf("log lines to _bulk per CPU second, %d of %d bytes in %d files, ", logLines, criBytes, logContainers)
	agent := shipAll(t, f, ours("none"))
	rows := []row{agent.against(figure+"no gzip", shipAll(t, f, filebeat), "at least 4.5")}
	if rsyslog, err := findRsyslog(); err != nil {
		rows = append(rows, row{figure: figure + "no gzip", ours: agent.String(), peer: fmt.Sprintf("no rsyslog: %v", err)})
	} else {
		rows = append(rows, agent.against(figure+"no gzip", shipAll(t, f, rsyslog), "at least 1.8"))
	}
	return append(rows, row{figure: figure + "gzip level 1", ours: shipAll(t, f, ours("gzip")).String(), goal: "at least 100000"})
}

// shipToElasticsearch measures the agent into the real server, which has both
// cores and the limit.
func shipToElasticsearch(t *testing.T) []row {
	const lines = 400_000
	lab := harness.New(t)
	es := lab.Elasticsearch()
	f := writeFolder(t, filepath.Join(t.TempDir(), "pods"), podsOf(logContainers/2, 2), lines)
	before := cpuOfGroup(t, es.PID())
	begun := time.Now()
	agent := startAgent(t, lab, f, es.URL, "gzip")
	lab.Eventually(8*time.Minute, "all lines are stored", func() error {
		figures, err := agent.Figures()
		if err != nil {
			return err
		}
		if n, _ := figures.Sum(metric.LogRecords, `state="stored"`); n < lines {
			return fmt.Errorf("%.0f of %d are", n, lines)
		}
		return nil
	})
	took, used := time.Since(begun), cpuExact(t, agent.PID())
	if n, err := es.Count("logs-*"); err != nil || n != lines {
		t.Errorf("%d of %d lines are stored: %v", n, lines, err)
	}
	return []row{{
		figure: fmt.Sprintf("log lines into the real Elasticsearch 8.19.7 per second, %d of %d bytes, gzip level 1", lines, criBytes),
		ours: fmt.Sprintf("%.0f a second; the agent takes %.2f core, %.0f lines per CPU second, %.0f MiB",
			lines/took.Seconds(), used.Seconds()/took.Seconds(), lines/used.Seconds(), memory(t, agent.PID(), "VmHWM")),
		peer: fmt.Sprintf("Elasticsearch: %.2f core", (cpuOfGroup(t, es.PID())-before).Seconds()/took.Seconds()),
		goal: "its limit",
	}}
}

// cpuOfGroup is the CPU time of the processes of a group: the first process of
// Elasticsearch only starts the server.
func cpuOfGroup(t *testing.T, group int) (sum time.Duration) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var pid, of int
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		if _, err := fmt.Sscan(fields[2], &of); err != nil || of != group {
			continue
		}
		if _, err := fmt.Sscan(string(data), &pid); err != nil {
			t.Fatal(err)
		}
		sum += cpuExact(t, pid)
	}
	return sum
}

// vlagent reads the logs of the pods that the API server names; it sends them to
// VictoriaLogs, in that one's own protocol, compressed.
var vlagent = shipper{"vlagent 1.43.1, not to _bulk", false, func(t *testing.T, lab *harness.Lab, f logFolder, sink string) *harness.Process {
	t.Helper()
	path, args := pinned(agentCore, filepath.Join(part(t, lab, parts.VLAgent), "vlagent"),
		fmt.Sprintf("-httpListenAddr=127.0.0.1:%d", lab.Port()), "-kubernetesCollector", "-kubernetesCollector.logsPath="+f.root+"-containers",
		"-remoteWrite.url=http://"+sink+"/insert/native", "-tmpDataPath="+lab.Dir("vlagent"))
	return lab.Start(harness.Command{Name: "vlagent", Path: path, Args: args, Dir: lab.Dir("vlagent"), Env: []string{"KUBECONFIG=" + f.kube.start(t, lab)}})
}}

// steadily lets containers write at a rate while a shipper follows them, and
// calls measure after it has settled; for a time it is then left alone.
func steadily(t *testing.T, s shipper, rate int, span time.Duration) (w work, rss, anon float64, says told) {
	t.Helper()
	lab := harness.New(t)
	listen := startSink(t, lab)
	f := logFolder{root: lab.Dir("pods"), kube: podsOf(logContainers/2, 2)}
	kubelet := harness.NewKubelet(harness.KubeletConfig{Root: f.root, LineBytes: criBytes})
	for _, p := range f.kube.pods {
		for n, name := range p.containers {
			c, err := kubelet.Add(p.namespace, p.name, p.uid, name, rate/logContainers)
			if err != nil {
				t.Fatal(err)
			}
			f.link(t, p, n, c.Path())
		}
	}
	p := s.start(t, lab, f, listen)
	kubelet.Start()
	lab.Until(time.Now().Add(10*time.Second), s.name+" settles")
	before, begun := cpuExact(t, p.PID()), time.Now()
	first, _ := kubelet.Written()
	sinkSays(t, listen, true)
	lab.Eventually(span+time.Minute, "the time is over", func() error {
		rss, anon = max(rss, memory(t, p.PID(), "VmRSS")), max(anon, memory(t, p.PID(), "RssAnon"))
		if left := span - time.Since(begun); left > 0 {
			return fmt.Errorf("%s are left", left)
		}
		return nil
	})
	w = work{what: s.name, unit: "lines", took: time.Since(begun), cpu: cpuExact(t, p.PID()) - before, peak: memory(t, p.PID(), "VmHWM")}
	says = sinkSays(t, listen, false)
	last, _ := kubelet.Written()
	w.done = last - first
	if err := kubelet.Stop(); err != nil {
		t.Fatal(err)
	}
	lab.Say("%s: %d lines in %s, %s of CPU; sink %+v", s.name, w.done, w.took.Round(time.Millisecond), w.cpu.Round(time.Millisecond), says)
	if says.Requests+says.Records == 0 {
		t.Errorf("%s sent nothing", s.name)
	}
	p.Kill()
	return w, rss, anon, says
}

// shipSteadily measures what a usual load costs.
func shipSteadily(t *testing.T) []row {
	const rate, span = 10_000, 30 * time.Second
	cost := func(s shipper) (string, float64) {
		w, rss, anon, _ := steadily(t, s, rate, span)
		cores := w.cpu.Seconds() / w.took.Seconds() * rate / (float64(w.done) / w.took.Seconds())
		return fmt.Sprintf("%.3f core, %.0f MiB resident, %.0f of them its own", cores, rss, anon), cores
	}
	us, ours1 := cost(ours("gzip"))
	plain, _ := cost(ours("none"))
	them, theirs := cost(vlagent)
	figure := fmt.Sprintf("cost of a steady %d log lines a second, logs alone, ", rate)
	return []row{
		{figure: figure + "gzip level 1", ours: us, peer: vlagent.name + ": " + them, ratio: fmt.Sprintf("%.2f", ours1/theirs), goal: "at most 0.08 core, 40 MiB"},
		{figure: figure + "no gzip", ours: plain, goal: "at most 0.08 core, 40 MiB"},
	}
}

// followMany measures the memory that files without news take.
func followMany(t *testing.T) []row {
	const files, lines = 5000, 20
	lab := harness.New(t)
	listen := startSink(t, lab)
	f := writeFolder(t, filepath.Join(t.TempDir(), "pods"), podsOf(250, files/250), files*lines)
	agent := startAgent(t, lab, f, "http://"+listen, "gzip")
	lab.Eventually(3*time.Minute, "all files are read", func() error {
		figures, err := agent.Figures()
		if err != nil {
			return err
		}
		followed, _ := figures.Sum(metric.LogFiles)
		if records, _, err := received(listen); err != nil || records < files*lines || followed < files {
			return fmt.Errorf("%.0f files are followed, %d records arrived (%v)", followed, records, err)
		}
		return nil
	})
	high := memory(t, agent.PID(), "VmHWM")
	before, begun := cpuExact(t, agent.PID()), time.Now()
	lab.Until(begun.Add(30*time.Second), "the agent settles")
	cores := (cpuExact(t, agent.PID()) - before).Seconds() / time.Since(begun).Seconds()
	return []row{{
		figure: fmt.Sprintf("resident memory with %d files of %d pods followed", files, len(f.kube.pods)),
		ours: fmt.Sprintf("%.0f MiB, %.0f of them its own, %.0f at the most; %.3f core without news",
			memory(t, agent.PID(), "VmRSS"), memory(t, agent.PID(), "RssAnon"), high, cores),
		goal: "at most 80 MiB",
	}}
}

// delayOfLogs measures from the time in the line to the moment of the answer.
func delayOfLogs(t *testing.T) []row {
	_, _, _, says := steadily(t, ours("gzip"), 1000, 30*time.Second)
	if says.Aged < 20_000 {
		t.Errorf("the delays are of %d records", says.Aged)
	}
	return []row{{
		figure: "delay of a log line from its write to its acknowledgement, 1000 lines a second",
		ours:   fmt.Sprintf("p50 %s, p99 %s", says.P50, says.P99), goal: "p99 under 2s",
	}}
}
