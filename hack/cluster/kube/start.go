//go:build linux

package kube

import (
	"github.com/moat-dev/moat/hack/cluster/machine"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// Images is what the nodes' containerd is given.
type Images struct {
	Archives []string // of images, to import
	Pause    string   // the name of the one that sandboxes are made of
}

// Start starts the control plane and the nodes on machines that are there, and
// ends when every node is Ready. What doesn't depend on each other runs at the same time.
func Start(r *machine.Record, i Images) error {
	r.Snapshotter = chooseSnapshotter()
	if err := makeCredentials(r.Options); err != nil {
		return err
	}
	if err := r.Write(); err != nil {
		return err
	}
	err := progress.InParallel([]func() error{
		func() error { return startControlPlane(r) },
		func() error { return startRuntimes(r, i) },
	}, func(f func() error) error { return f() })
	if err != nil {
		return err
	}
	return startNodes(r)
}

func startControlPlane(r *machine.Record) error {
	return progress.During("starting etcd and the API server", nil, func() error {
		if err := startAPI(r); err != nil {
			return err
		}
		if err := awaitAPI(); err != nil {
			return err
		}
		return bootstrap(r)
	})
}

func startRuntimes(r *machine.Record, i Images) error {
	return progress.During("starting containerd on each node and importing images", nil, func() error {
		return progress.InParallel(machine.Nodes(r.Options.Nodes), func(n machine.Machine) error { return startContainerd(r, n, i) })
	})
}

// startNodes needs the API server and the nodes' containerd.
func startNodes(r *machine.Record) error {
	err := progress.During("starting the controllers, kubelet, kube-proxy and the pod network ("+r.Network+")", nil, func() error {
		if err := startControllers(r); err != nil {
			return err
		}
		if err := progress.InParallel(machine.Nodes(r.Options.Nodes), func(n machine.Machine) error { return startKubelet(r, n) }); err != nil {
			return err
		}
		return startPodNetwork(r)
	})
	if err != nil {
		return err
	}
	return progress.During("waiting for the nodes to be Ready", nil, func() error { return awaitNodes(r) })
}
