//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func upCommand(args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if err := checkMachine(); err != nil {
		return err
	}
	checkout, err := findCheckout()
	if err != nil {
		return err
	}
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()
	existing, err := readRecord()
	if err != nil {
		return err
	}
	if existing == nil {
		return up(o, checkout)
	}
	ended, err := existing.ended()
	if err != nil {
		return err
	}
	if !ended {
		return checkUp(existing, o, checkout)
	}
	say("nothing runs any more of the cluster that was started from %s; removing what is left of it", existing.Checkout)
	if err := down(); err != nil {
		return err
	}
	return up(o, checkout)
}

// checkUp decides what "up" means where a cluster runs: nothing if it is the one
// asked for and all of it runs.
func checkUp(r *record, o options, checkout string) error {
	if err := r.checkOwner(checkout); err != nil {
		return err
	}
	if !r.Complete {
		return fmt.Errorf("an earlier up did not come to its end: run %s down, then up", programCommand)
	}
	if r.Options != o {
		return fmt.Errorf("the cluster is up with other options (%s): run %s down first, or up with these options", r.Options, programCommand)
	}
	dead, err := deadProcesses()
	if err != nil {
		return err
	}
	if len(dead) > 0 {
		return fmt.Errorf("the cluster is partly dead (%s): run %s down, then up", joined(dead), programCommand)
	}
	say("the cluster is up already (%s), since %s", r.Options, r.Since.Format(time.RFC3339))
	return nil
}

func up(o options, checkout string) error {
	if err := keepDescriptors(); err != nil {
		return err
	}
	r := &record{Checkout: checkout, Options: o, Since: time.Now().Round(time.Second), BootID: bootID(), Network: o.Network}
	if err := provide(r); err != nil {
		return err
	}
	images, err := buildImages()
	if err != nil {
		return err
	}
	if err := makeMountPoints(r); err != nil {
		return err
	}
	if err := startCluster(r, images); err != nil {
		return fmt.Errorf("%w\nrun %s down to remove what was started", err, programCommand)
	}
	r.Complete = true
	if err := r.write(); err != nil {
		return err
	}
	say("up: %d nodes, network %s, %s; try: %s kubectl get nodes", o.Nodes, r.Network, o.IPFamily, programCommand)
	return nil
}

// keepDescriptors keeps what the caller opened from the cluster's processes, which
// outlive it: its lock would stay held, its pipe open.
func keepDescriptors() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	return os.NewSyscallError("close_range", err)
}

// provide makes programs available; flanneld is the only one that can be missed.
func provide(r *record) error {
	packages := clusterPackages
	if r.Options.ProxyMode == proxyNFTables {
		packages = append(packages, debianPackage{"nft", "nftables"})
	}
	if err := installPackages(packages); err != nil {
		return err
	}
	r.Binaries = map[string]string{}
	for _, name := range componentNames() {
		if name == "flannel" && r.Network != networkVXLAN {
			continue
		}
		paths, err := buildBinaries([]string{name})
		if err != nil && name == "flannel" {
			say("flanneld can't be had; using static routes (hostgw) in its place: %v", err)
			r.Network = networkHostGW
			continue
		}
		if err != nil {
			return err
		}
		maps.Copy(r.Binaries, paths)
	}
	return nil
}

// startCluster makes and starts everything. What doesn't depend on each other
// runs at the same time.
func startCluster(r *record, images []string) error {
	if err := shareNetnsDir(r); err != nil {
		return err
	}
	machines := r.machines()
	say("making %d network namespaces: %s", len(machines), machineNames(machines))
	if err := makeNetwork(r.Options, machines); err != nil {
		return err
	}
	if err := startInits(machines); err != nil {
		return err
	}
	r.Snapshotter = chooseSnapshotter()
	if err := makeCredentials(r.Options); err != nil {
		return err
	}
	if err := r.write(); err != nil {
		return err
	}
	err := inParallel([]func() error{
		func() error { return startControlPlane(r) },
		func() error { return startRuntimes(r, images) },
	}, func(f func() error) error { return f() })
	if err != nil {
		return err
	}
	return startNodes(r)
}

// makeMountPoints notes which are missing before it makes them, so that "down"
// removes those and no others.
func makeMountPoints(r *record) error {
	for _, folder := range privateFolders {
		if !exists(folder) {
			r.MountPoints = append(r.MountPoints, folder)
		}
	}
	if err := r.write(); err != nil {
		return err
	}
	for _, folder := range r.MountPoints {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("making a mount point: %w", err)
		}
	}
	return nil
}

func startInits(machines []machine) error {
	return inParallel(machines, func(m machine) error {
		if m.name == world {
			return nil // a host without processes
		}
		for _, folder := range privateFolders {
			if err := os.MkdirAll(m.privatePath(folder), 0o755); err != nil {
				return fmt.Errorf("making a folder of %s: %w", m.name, err)
			}
		}
		return m.startInit()
	})
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

func startRuntimes(r *record, images []string) error {
	return during("starting containerd on each node and importing images", nil, func() error {
		return inParallel(nodes(r.Options.Nodes), func(n machine) error { return startContainerd(r, n, images) })
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

func machineNames(machines []machine) string {
	var names []string
	for _, m := range machines {
		names = append(names, m.netns())
	}
	return strings.Join(names, ", ")
}
