//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"os"
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
		dead, err := deadProcesses()
		if err != nil {
			return err
		}
		return checkUp(existing, dead, o, checkout)
	}
	say("nothing runs any more of the cluster that was started from %s; removing what is left of it", existing.Checkout)
	if err := down(); err != nil {
		return err
	}
	return up(o, checkout)
}

// checkUp decides what "up" means where a cluster runs: nothing if it is the one
// asked for and all of it runs.
func checkUp(r *record, dead []process, o options, checkout string) error {
	if err := r.checkOwner(checkout); err != nil {
		return err
	}
	if !r.Complete {
		return fmt.Errorf("an earlier up did not come to its end: run %s down, then up", programCommand)
	}
	if r.Options != o {
		return fmt.Errorf("the cluster is up with other options (%s): run %s down first, or up with these options", r.Options, programCommand)
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
	archives, err := buildImages()
	if err != nil {
		return err
	}
	if err := makeMountPoints(r); err != nil {
		return err
	}
	if err := startCluster(r, archives); err != nil {
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

func startCluster(r *record, archives []string) error {
	if err := startAll(r); err != nil {
		return err
	}
	return startKubernetes(r, images{archives: archives, pause: pauseImage})
}
