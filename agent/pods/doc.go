// Package pods asks the API server what runs on this node, once for all in the
// agent who need to know, and what the cluster says about it: PodMonitors, and
// the Secrets, ConfigMaps and nodes that they refer to.
//
// It owns the access to the cluster, the lists and watches, and the words for
// what keeps them from working. It refuses to keep what it was told: a listener
// takes of an object what it needs, and the rest is garbage. Objects enter as
// JSON of the API and leave as Pod and PodMonitor, which hold the parts that are
// read and no others: the types of k8s.io/api/core/v1 would make the program
// 4 MB larger.
package pods
