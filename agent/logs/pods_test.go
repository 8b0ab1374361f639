package logs

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// apiServer plays the part of the Kubernetes API that Pods uses: the list and
// the watch of the metadata of pods. A real one comes with the cluster tests.
type apiServer struct {
	*httptest.Server
	mu        sync.Mutex
	selectors []string
	pods      []metav1.PartialObjectMetadata
	events    chan metav1.PartialObjectMetadata // sent to whoever watches
	forbidden bool
}

func newAPIServer(t *testing.T, pods ...metav1.PartialObjectMetadata) *apiServer {
	a := &apiServer{pods: pods, events: make(chan metav1.PartialObjectMetadata)}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Server.Close)
	return a
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.selectors = append(a.selectors, r.URL.Query().Get("fieldSelector"))
	pods, forbidden := a.pods, a.forbidden
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	switch {
	case r.URL.Path != "/api/v1/pods":
		http.NotFound(w, r)
	case forbidden:
		w.WriteHeader(http.StatusForbidden)
		enc.Encode(metav1.Status{Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: 403, TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}})
	case r.URL.Query().Get("sendInitialEvents") == "true":
		// An API without streaming lists says so; the client lists instead.
		w.WriteHeader(http.StatusUnprocessableEntity)
		enc.Encode(metav1.Status{Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: 422, TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}})
	case r.URL.Query().Get("watch") == "true":
		w.(http.Flusher).Flush()
		for {
			select {
			case p := <-a.events:
				enc.Encode(map[string]any{"type": "ADDED", "object": p})
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	default:
		enc.Encode(metav1.PartialObjectMetadataList{
			TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"},
			ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: pods,
		})
	}
}

func podObject(name, uid string) metav1.PartialObjectMetadata {
	yes := true
	return metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", UID: "u-1", ResourceVersion: "2",
			Labels:          map[string]string{"app": "web", "pod-template-hash": "6d4"},
			Annotations:     map[string]string{"team": "shop", "kubernetes.io/config.hash": uid},
			OwnerReferences: []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "web-6d4", Controller: &yes}},
		},
	}
}

// kubernetes #127980: every agent watched every pod of its cluster.
func TestOnlyPodsOfThisNodeAreWatched(t *testing.T) {
	api := newAPIServer(t, podObject("web-1", "hash"))
	p, err := newPods(&rest.Config{Host: api.URL}, "n1", quiet)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	defer running.Wait()
	defer cancel()

	changes := p.Version()
	api.events <- podObject("web-2", "") // received: the list was taken, and the watch stands
	for p.Version() < changes+1 || p.Find("shop", "web-2", "") == nil {
		if t.Context().Err() != nil {
			t.Fatal("the pod that was added is not known")
		}
	}
	got := p.Find("shop", "web-1", "u-1")
	if got == nil || got.Labels["app"] != "web" || got.Annotations["team"] != "shop" {
		t.Fatalf("found %+v", got)
	}
	if owners := got.owners(); owners["replicaset"] != "web-6d4" || owners["deployment"] != "web" {
		t.Errorf("owners %v", owners)
	}
	if p.Find("shop", "web-1", "hash") == nil {
		t.Error("a static pod is not found by the hash in its folder's name")
	}
	if p.Find("shop", "web-1", "u-0") != nil {
		t.Error("the labels of another pod of that name were given")
	}
	if p.Find("shop", "web-3", "") != nil {
		t.Error("found a pod that is not there")
	}
	api.mu.Lock()
	defer api.mu.Unlock()
	for _, s := range api.selectors {
		if s != "spec.nodeName=n1" {
			t.Errorf("asked with field selector %q", s)
		}
	}
}

func TestLongAnnotationsStayOut(t *testing.T) {
	p := podObject("web", "")
	p.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = string(make([]byte, maxAnnotation+1))
	o, err := slim(&p)
	if err != nil {
		t.Fatal(err)
	}
	kept := o.(*metav1.PartialObjectMetadata)
	if len(kept.Annotations) != 2 || kept.Labels["app"] != "web" {
		t.Errorf("kept %+v", kept)
	}
}

func TestNoClusterIsSaidSo(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("KUBECONFIG", t.TempDir()+"/none")
	if _, err := NewPods("n1", quiet); err != ErrNoCluster {
		t.Errorf("got %v", err)
	}
}
