//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/hack/cluster/build"
	"github.com/moat-dev/moat/hack/cluster/kube"
	"github.com/moat-dev/moat/hack/cluster/machine"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

func upCommand(args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if err := machine.CheckHost(); err != nil {
		return err
	}
	checkout, err := build.FindCheckout()
	if err != nil {
		return err
	}
	unlock, err := machine.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	existing, err := machine.ReadRecord()
	if err != nil {
		return err
	}
	if existing == nil {
		return up(o, checkout)
	}
	ended, err := existing.Ended()
	if err != nil {
		return err
	}
	if !ended {
		dead, err := machine.DeadProcesses()
		if err != nil {
			return err
		}
		return checkUp(existing, dead, o, checkout)
	}
	progress.Say("nothing runs any more of the cluster that was started from %s; removing what is left of it", existing.Checkout)
	if err := down(); err != nil {
		return err
	}
	return up(o, checkout)
}

// checkUp decides what "up" means where a cluster runs: nothing if it is the one
// asked for and all of it runs.
func checkUp(r *machine.Record, dead []machine.Process, o machine.Options, checkout string) error {
	if err := r.CheckOwner(checkout); err != nil {
		return err
	}
	if !r.Complete {
		return fmt.Errorf("an earlier up did not come to its end: run %s down, then up", machine.ProgramCommand)
	}
	if r.Options != o {
		return fmt.Errorf("the cluster is up with other options (%s): run %s down first, or up with these options", r.Options, machine.ProgramCommand)
	}
	if len(dead) > 0 {
		return fmt.Errorf("the cluster is partly dead (%s): run %s down, then up", machine.Joined(dead), machine.ProgramCommand)
	}
	progress.Say("the cluster is up already (%s), since %s", r.Options, r.Since.Format(time.RFC3339))
	return nil
}

func up(o machine.Options, checkout string) error {
	if err := keepDescriptors(); err != nil {
		return err
	}
	r := &machine.Record{Checkout: checkout, Options: o, Since: time.Now().Round(time.Second), BootID: machine.BootID(), Network: o.Network}
	if err := provide(r); err != nil {
		return err
	}
	archives, err := build.Images()
	if err != nil {
		return err
	}
	if err := machine.MakeMountPoints(r); err != nil {
		return err
	}
	if err := startCluster(r, archives); err != nil {
		return fmt.Errorf("%w\nrun %s down to remove what was started", err, machine.ProgramCommand)
	}
	r.Complete = true
	if err := r.Write(); err != nil {
		return err
	}
	progress.Say("up: %d nodes, network %s, %s; try: %s kubectl get nodes", o.Nodes, r.Network, o.IPFamily, machine.ProgramCommand)
	return nil
}

// keepDescriptors keeps what the caller opened from the cluster's processes, which
// outlive it: its lock would stay held, its pipe open.
func keepDescriptors() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	return os.NewSyscallError("close_range", err)
}

// provide makes programs available; flanneld is the only one that can be missed.
func provide(r *machine.Record) error {
	packages := build.ClusterPackages
	if r.Options.ProxyMode == machine.ProxyNFTables {
		packages = append(packages, build.DebianPackage{Program: "nft", Name: "nftables"})
	}
	if err := build.InstallPackages(packages); err != nil {
		return err
	}
	r.Binaries = map[string]string{}
	for _, name := range build.ComponentNames() {
		if name == "flannel" && r.Network != machine.NetworkVXLAN {
			continue
		}
		paths, err := build.Binaries([]string{name})
		if err != nil && name == "flannel" {
			progress.Say("flanneld can't be had; using static routes (hostgw) in its place: %v", err)
			r.Network = machine.NetworkHostGW
			continue
		}
		if err != nil {
			return err
		}
		maps.Copy(r.Binaries, paths)
	}
	return nil
}

func startCluster(r *machine.Record, archives []string) error {
	if err := machine.StartAll(r); err != nil {
		return err
	}
	return kube.Start(r, kube.Images{Archives: archives, Pause: build.PauseImage})
}
