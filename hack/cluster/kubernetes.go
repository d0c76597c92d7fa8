//go:build linux

package main

// images is what the nodes' containerd is given.
type images struct {
	archives []string // of images, to import
	pause    string   // the name of the one that sandboxes are made of
}

// startKubernetes starts the control plane and the nodes on machines that are there, and
// ends when every node is Ready. What doesn't depend on each other runs at the same time.
func startKubernetes(r *record, i images) error {
	r.Snapshotter = chooseSnapshotter()
	if err := makeCredentials(r.Options); err != nil {
		return err
	}
	if err := r.write(); err != nil {
		return err
	}
	err := inParallel([]func() error{
		func() error { return startControlPlane(r) },
		func() error { return startRuntimes(r, i) },
	}, func(f func() error) error { return f() })
	if err != nil {
		return err
	}
	return startNodes(r)
}

func startControlPlane(r *record) error {
	return during("starting etcd and the API server", nil, func() error {
		if err := startAPI(r); err != nil {
			return err
		}
		if err := awaitAPI(); err != nil {
			return err
		}
		return bootstrap(r)
	})
}

func startRuntimes(r *record, i images) error {
	return during("starting containerd on each node and importing images", nil, func() error {
		return inParallel(nodes(r.Options.Nodes), func(n machine) error { return startContainerd(r, n, i) })
	})
}

// startNodes needs the API server and the nodes' containerd.
func startNodes(r *record) error {
	err := during("starting the controllers, kubelet, kube-proxy and the pod network ("+r.Network+")", nil, func() error {
		if err := startControllers(r); err != nil {
			return err
		}
		if err := inParallel(nodes(r.Options.Nodes), func(n machine) error { return startKubelet(r, n) }); err != nil {
			return err
		}
		return startPodNetwork(r)
	})
	if err != nil {
		return err
	}
	return during("waiting for the nodes to be Ready", nil, func() error { return awaitNodes(r) })
}
