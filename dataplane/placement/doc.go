// Package placement says whether the pods of a DaemonSet belong on a Node, as the
// DaemonSet controller of Kubernetes decides it (NodeShouldRunDaemonPod in
// pkg/controller/daemon/daemon_controller.go).
//
// The package is pure: an answer depends only on the arguments.
package placement
