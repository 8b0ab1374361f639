//go:build e2e

package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"nines/e2e/harness"
)

// benchNode is the node that all pods of a kube run on.
const benchNode = "bench-node"

// kube plays the API server, as far as agents ask it for the pods of a node.
type kube struct{ pods []kubePod }

type kubePod struct {
	namespace, name, uid string
	containers           []string
}

// containerID is that of a container, as its runtime gives it.
func (p kubePod) containerID(n int) string { return fmt.Sprintf("%s%056x", p.uid[len(p.uid)-8:], n) }

// podsOf makes pods with so many containers each.
func podsOf(pods, containers int) *kube {
	k := &kube{}
	for n := range pods {
		p := kubePod{namespace: "shop", name: fmt.Sprintf("web-6d4cf56db6-%05d", n), uid: fmt.Sprintf("0b9a1c1e-7c0e-4f64-9d6a-%012d", n)}
		for c := range containers {
			p.containers = append(p.containers, fmt.Sprintf("app-%d", c))
		}
		k.pods = append(k.pods, p)
	}
	return k
}

// start serves it and returns a file for KUBECONFIG.
func (k *kube) start(t *testing.T, lab *harness.Lab) string {
	t.Helper()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", lab.Port()))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: k}
	done := make(chan error, 1) // the goroutine below puts one in
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(server.Close(), <-done); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("API server: %v", err)
		}
	})
	return lab.Write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: bench
clusters: [{name: bench, cluster: {server: "http://%s"}}]
users: [{name: bench, user: {token: bench}}]
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
`, listener.Addr()))
}

func (k *kube) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	// Some ask for the metadata alone (Kubernetes, "Receiving resources as
	// Tables" and PartialObjectMetadata by Accept).
	partial := strings.Contains(r.Header.Get("Accept"), "as=PartialObjectMetadata")
	w.Header().Set("Content-Type", "application/json")
	say := json.NewEncoder(w)
	var err error
	switch {
	case r.URL.Path == "/api/v1/nodes":
		err = say.Encode(object{"kind": "NodeList", "apiVersion": "v1", "metadata": object{"resourceVersion": "1"}, "items": []object{node()}})
	case r.URL.Path == "/api/v1/nodes/"+benchNode:
		err = say.Encode(node())
	case r.URL.Path != "/api/v1/pods":
		w.WriteHeader(http.StatusNotFound)
		err = say.Encode(object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})
	case query.Get("fieldSelector") != "spec.nodeName="+benchNode:
		// Who asks for the pods of all nodes is not to be measured.
		w.WriteHeader(http.StatusForbidden)
		err = say.Encode(object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403, "message": "ask for the pods of " + benchNode})
	case query.Get("watch") == "true" || query.Get("watch") == "1":
		if query.Get("sendInitialEvents") == "true" {
			for _, p := range k.pods {
				err = errors.Join(err, say.Encode(object{"type": "ADDED", "object": p.object(partial)}))
			}
			bookmark := kubePod{}.object(partial)
			bookmark["metadata"] = object{"resourceVersion": "1", "annotations": object{"k8s.io/initial-events-end": "true"}}
			err = errors.Join(err, say.Encode(object{"type": "BOOKMARK", "object": bookmark}))
		}
		err = errors.Join(err, http.NewResponseController(w).Flush())
		if err == nil {
			<-r.Context().Done() // nothing ever changes
		}
	default:
		list := object{"kind": "PodList", "apiVersion": "v1"}
		if partial {
			list = object{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
		}
		var items []object
		for _, p := range k.pods {
			items = append(items, p.object(partial))
		}
		list["metadata"], list["items"] = object{"resourceVersion": "1"}, items
		err = say.Encode(list)
	}
	_ = err // who asked is gone
}

type object = map[string]any

func node() object {
	return object{"kind": "Node", "apiVersion": "v1", "metadata": object{"name": benchNode, "resourceVersion": "1", "labels": object{"kubernetes.io/hostname": benchNode}}}
}

// object is a pod as the API server gives it, or its metadata alone.
func (p kubePod) object(partial bool) object {
	meta := object{
		"name": p.name, "namespace": p.namespace, "uid": p.uid, "resourceVersion": "1",
		"labels": object{
			"app.kubernetes.io/name": "web", "app.kubernetes.io/instance": "shop", "app.kubernetes.io/version": "1.27.3",
			"app.kubernetes.io/part-of": "shop", "team": "checkout", "pod-template-hash": "6d4cf56db6",
		},
		"annotations":     object{"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
		"ownerReferences": []object{{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-6d4cf56db6", "uid": "1b9a1c1e", "controller": true}},
	}
	if partial {
		return object{"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
	}
	var containers, statuses []object
	for n, name := range p.containers {
		image := "registry.example/shop/web:1.27.3"
		containers = append(containers, object{"name": name, "image": image})
		statuses = append(statuses, object{"name": name, "image": image, "imageID": image, "containerID": "containerd://" + p.containerID(n), "ready": true, "restartCount": 0, "state": object{"running": object{"startedAt": "2026-11-01T00:00:00Z"}}})
	}
	return object{
		"kind": "Pod", "apiVersion": "v1", "metadata": meta,
		"spec":   object{"nodeName": benchNode, "containers": containers},
		"status": object{"phase": "Running", "podIP": "10.0.0.7", "qosClass": "Burstable", "containerStatuses": statuses},
	}
}
