//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nines/e2e/harness"
)

type object = map[string]any

// cluster plays the API server for the pods of one node and for PodMonitors:
// it lists them, and tells every watcher what is sent.
type cluster struct {
	mu       sync.Mutex
	version  int
	objects  map[string][]object        // by path
	watchers map[string][]chan<- object // likewise
}

const (
	podsPath     = "/api/v1/pods"
	monitorsPath = "/apis/monitoring.coreos.com/v1/podmonitors"
)

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	say := json.NewEncoder(w)
	c.mu.Lock()
	all, known := c.objects[r.URL.Path]
	list := object{"kind": map[string]string{podsPath: "PodList", monitorsPath: "PodMonitorList"}[r.URL.Path],
		"apiVersion": map[string]string{podsPath: "v1", monitorsPath: "monitoring.coreos.com/v1"}[r.URL.Path],
		"metadata":   object{"resourceVersion": fmt.Sprint(c.version)}, "items": all}
	events := make(chan object, 100) // far more than the test sends
	watches := r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1"
	if watches {
		c.watchers[r.URL.Path] = append(c.watchers[r.URL.Path], events)
	}
	c.mu.Unlock()
	switch {
	case !known:
		w.WriteHeader(http.StatusNotFound)
		_ = say.Encode(object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}) // who asked may be gone
	case !watches:
		_ = say.Encode(list)
	default:
		flusher := http.NewResponseController(w)
		_ = flusher.Flush()
		for {
			select {
			case e := <-events:
				if say.Encode(e) != nil || flusher.Flush() != nil {
					return
				}
			case <-r.Context().Done():
				return
			}
		}
	}
}

// tell sends a change to all who watch, and keeps what is there.
func (c *cluster) tell(path, kind string, o object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version++
	meta := o["metadata"].(object)
	meta["resourceVersion"] = fmt.Sprint(c.version)
	var kept []object
	for _, x := range c.objects[path] {
		if x["metadata"].(object)["uid"] != meta["uid"] {
			kept = append(kept, x)
		}
	}
	if kind != "DELETED" {
		kept = append(kept, o)
	}
	c.objects[path] = kept
	for _, w := range c.watchers[path] {
		w <- object{"type": kind, "object": o}
	}
}

// podAt is a pod whose one container listens at the address of a server.
func podAt(t *testing.T, name string, server *httptest.Server, labels, annotations object) object {
	t.Helper()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscan(u.Port(), &port); err != nil {
		t.Fatal(err)
	}
	return object{
		"kind": "Pod", "apiVersion": "v1",
		"metadata": object{"name": name, "namespace": "shop", "uid": "uid-" + name, "labels": labels, "annotations": annotations},
		"spec":     object{"nodeName": "node-1", "containers": []object{{"name": "app", "image": "shop:1", "ports": []object{{"name": "metrics", "containerPort": port, "protocol": "TCP"}}}}},
		"status": object{"phase": "Running", "podIP": "127.0.0.1", "podIPs": []object{{"ip": "127.0.0.1"}}, "hostIP": "127.0.0.1",
			"conditions":        []object{{"type": "Ready", "status": "True"}},
			"containerStatuses": []object{{"name": "app", "ready": true, "containerID": "containerd://abc", "state": object{"running": object{"startedAt": "2026-11-01T00:00:00Z"}}}}},
	}
}

// The agent finds the pods of its node, by annotations and by a PodMonitor that
// comes later, scrapes one more often that is about to go, and marks its end.
func TestPodsAreScrapedFromTheirFirstToTheirLastSecond(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	_, target := newShop(t)
	var reads atomic.Int64
	page := target.Config.Handler
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reads.Add(1)
		page.ServeHTTP(w, r)
	}))
	t.Cleanup(web.Close)
	api := httptest.NewServer(page)
	t.Cleanup(api.Close)

	played := &cluster{version: 1, objects: map[string][]object{}, watchers: map[string][]chan<- object{}}
	annotated := podAt(t, "web-1", web, object{"app": "web"}, object{"prometheus.io/scrape": "true", "prometheus.io/port": web.URL[strings.LastIndexByte(web.URL, ':')+1:]})
	played.objects[podsPath] = []object{annotated, podAt(t, "api-1", api, object{"app": "api"}, object{})}
	server := httptest.NewServer(played)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	kubeconfig := lab.Write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u}]
contexts: [{name: c, context: {cluster: c, user: u}}]
`, server.URL))

	aggregator := lab.Aggregator()
	agent := lab.Agent(harness.AgentConfig{
		Node: "node-1", SendTo: aggregator.URL, Env: []string{"KUBECONFIG=" + kubeconfig},
		Metrics: "kubelet: {enabled: \"false\"}\npods: {interval: 30s}\n",
	})
	shows := func(query string) {
		t.Helper()
		lab.Eventually(time.Minute, "the aggregator shows "+query, func() error {
			_, err := raw(aggregator.URL, query, time.Now())
			return err
		})
	}
	shows(`shop_requests_total{job="kubernetes-pods",namespace="shop",pod="web-1",node="node-1",cluster="e2e",code="200"}`)

	// The kind PodMonitor is not known yet; the status says so.
	lab.Eventually(time.Minute, "the agent says that there are no PodMonitors", func() error {
		data, err := harness.Get(agent.URL + "/api/nines/v1/targets")
		if err == nil && !strings.Contains(string(data), `"place": "PodMonitors"`) {
			err = fmt.Errorf("it says %s", data)
		}
		return err
	})
	if data, err := harness.Get(agent.URL + "/metrics/pods"); err != nil || !strings.Contains(string(data), `pod="web-1"`) || strings.Contains(string(data), `pod="api-1"`) {
		t.Errorf("/metrics/pods: %v, %.2000s", err, data)
	}

	// About to go: its next scrapes come long before half a minute is over.
	before := reads.Load()
	annotated["metadata"].(object)["deletionTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	annotated["metadata"].(object)["deletionGracePeriodSeconds"] = 30
	played.tell(podsPath, "MODIFIED", annotated)
	lab.Eventually(20*time.Second, "the pod is scraped each second", func() error {
		if n := reads.Load() - before; n < 5 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	played.tell(podsPath, "DELETED", annotated)
	lab.Eventually(time.Minute, "the series of the pod have ended", func() error {
		if got, err := raw(aggregator.URL, `up{pod="web-1"}`, time.Now()); err == nil {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
	if got, err := raw(aggregator.URL, `count_over_time(shop_requests_total{pod="web-1",code="200"}[5m])`, time.Now()); err != nil {
		t.Errorf("what was scraped is gone: %q, %v", got, err)
	}
	agent.Stop()
	aggregator.Stop()
}

// A PodMonitor selects a pod by its labels, with the operator's names.
func TestPodMonitorSelectsPodsOfTheNode(t *testing.T) {
	t.Parallel()
	lab := harness.New(t)
	_, target := newShop(t)
	played := &cluster{version: 1, objects: map[string][]object{monitorsPath: {}}, watchers: map[string][]chan<- object{}}
	played.objects[podsPath] = []object{podAt(t, "api-1", target, object{"app": "api"}, object{})}
	server := httptest.NewServer(played)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	kubeconfig := lab.Write("kubeconfig", fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n", server.URL))
	aggregator := lab.Aggregator()
	agent := lab.Agent(harness.AgentConfig{Node: "node-1", SendTo: aggregator.URL, Env: []string{"KUBECONFIG=" + kubeconfig}, Metrics: "kubelet: {enabled: \"false\"}\n"})
	lab.Eventually(time.Minute, "the agent knows the pod", func() error {
		data, err := harness.Get(agent.URL + "/api/nines/v1/targets")
		if err == nil && !strings.Contains(string(data), `"pods": 1`) {
			err = fmt.Errorf("it says %s", data)
		}
		return err
	})
	played.tell(monitorsPath, "ADDED", object{
		"kind": "PodMonitor", "apiVersion": "monitoring.coreos.com/v1", "metadata": object{"name": "api", "namespace": "shop", "uid": "uid-monitor"},
		"spec": object{"selector": object{"matchLabels": object{"app": "api"}}, "podMetricsEndpoints": []object{
			{"port": "metrics", "interval": "1s", "scrapeTimeout": "1s", "metricRelabelings": []object{{"action": "drop", "sourceLabels": []string{"code"}, "regex": "500"}}},
		}},
	})
	lab.Eventually(time.Minute, "the aggregator shows what the PodMonitor selects", func() error {
		_, err := raw(aggregator.URL, `shop_requests_total{job="shop/api",namespace="shop",pod="api-1",container="app",endpoint="metrics",code="200"}`, time.Now())
		return err
	})
	if got, err := raw(aggregator.URL, `shop_requests_total{code="500"}`, time.Now()); err == nil {
		t.Errorf("a series that is to be dropped came: %s", got)
	}
	agent.Stop()
	aggregator.Stop()
}
