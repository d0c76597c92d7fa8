// Package machine makes the hosts of a cluster on this host: network namespaces and the
// links between them, an init in namespaces of its own for each, cgroups, and the daemons
// on them. It records what it made in a folder, so that it can remove all of it.
//
// "The host" is the user's computer; a Machine is one of the cluster's. The functions
// enter namespaces on threads of their own, so that no other goroutine is moved. Only
// EnterNetns moves the caller's thread.
//
// The command line and package kube import it. It knows nothing of Kubernetes but the
// options and addresses that it records.
package machine
