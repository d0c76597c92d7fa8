// Package bench measures the agent as it is shipped, on clusters of many sizes: a
// real kube-apiserver and etcd, and one node whose agent, pods and packets are
// real. The other nodes' pods are objects of the API, but for a few that send.
//
// hack/bench.sh runs it. Its test of how much a change costs is part of make test.
package bench
