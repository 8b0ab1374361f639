package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// ErrNone says that neither a kubeconfig nor a service account was found.
var ErrNone = errors.New("no cluster configured")

// finder looks for access to a cluster. Its parts differ in tests.
type finder struct {
	inCluster func() (*rest.Config, error)
	files     []string // kubeconfig files, the first that exists counts
}

func newFinder() finder {
	return finder{rest.InClusterConfig, clientcmd.NewDefaultClientConfigLoadingRules().GetLoadingPrecedence()}
}

// find returns how to reach the API, and in words where that was found: the
// kubeconfig named in the configuration, else the service account of the pod
// that this runs in, else $KUBECONFIG or ~/.kube/config. ErrNone if there is
// none of them.
func (f finder) find(cfg Config) (*rest.Config, string, error) {
	files := f.files
	if cfg.Kubeconfig != "" {
		files = []string{cfg.Kubeconfig}
	} else {
		c, err := f.inCluster()
		if err == nil {
			return c, "the service account of this pod", nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) {
			return nil, "", fmt.Errorf("read the service account of this pod: %w", err)
		}
	}
	for _, file := range files {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) && cfg.Kubeconfig == "" {
			continue
		} else if err != nil {
			return nil, "", fmt.Errorf("read kubeconfig: %w: correct cluster.kubeconfig", err)
		}
		c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: file},
			&clientcmd.ConfigOverrides{CurrentContext: cfg.Context}).ClientConfig()
		if err != nil {
			return nil, "", fmt.Errorf("read kubeconfig %s: %w: correct the file, or cluster.context", file, err)
		}
		return c, "kubeconfig " + file, nil
	}
	return nil, "", ErrNone
}
