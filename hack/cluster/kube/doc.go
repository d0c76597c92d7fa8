// Package kube runs Kubernetes on machines: keys and kubeconfigs, the control plane, and
// containerd, kubelet, kube-proxy and the pod network of each node.
//
// The command line imports it. It imports package machine, and gets from the caller what
// package build has built: by the machines' record and by Images.
package kube
