// Command cluster runs a real multi-node Kubernetes cluster on one machine, in
// network namespaces that it makes, from binaries that it builds out of pinned
// Go modules. It needs no container engine and no registry.
//
// A node is a process tree: one small init in mount, PID, UTS and network
// namespaces of its own, and containerd, kubelet, kube-proxy and flanneld beside
// it. Killing the init makes the kernel end everything on the node and drop its
// mounts, which is what makes "down" complete whatever happened before.
//
// This package is the command line alone. It reads arguments, decides what "up" and
// "down" mean on this host, and calls the packages that do the work:
//
//	cluster ──▶ build      programs and images
//	   ├──────▶ kube       Kubernetes on the machines
//	   │          ▼
//	   └──────▶ machine    namespaces, cgroups, processes, records
//
// All of them tell the user how far they are by package progress, and none imports the
// package that calls it. See docs/local-cluster.md.
package main
