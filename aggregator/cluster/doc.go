// Package cluster owns what only the Kubernetes API knows: objects read by
// client-go informers, told as series under kube-state-metrics' names. By now
// these are the nodes.
//
// It refuses to store, to write to the cluster, and to guess: with the
// connection to the API lost for longer than a grace time it tells no node at
// all, and up = 0 says so from the first failure on.
//
// Objects enter by list and watch, reduced to the fields that are used before
// they are kept. Series leave once an interval through the Sink, in the shape
// of pkg/metric; the wiring connects that to the store under
// job="kube-state-metrics".
package cluster
