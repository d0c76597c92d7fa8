package roads

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netns"
)

// within runs a function on a thread of its own in a network namespace. Sockets that it
// opens belong to that namespace.
func within(ns netns.NsHandle, do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime then ends the thread
		if err := netns.Set(ns); err != nil {
			result <- fmt.Errorf("entering a network namespace: %w", err)
			return
		}
		result <- do()
	}()
	return <-result
}

// machineNamespace is the network namespace of one of the cluster's machines.
func machineNamespace(machine string) (netns.NsHandle, error) {
	ns, err := netns.GetFromName("moat-" + machine)
	if err != nil {
		return ns, fmt.Errorf("opening the network namespace of %s: %w", machine, err)
	}
	return ns, nil
}

// namespaceOf finds the network namespace that has an address, among those of all
// processes. So the probes need neither the API server nor a program in the pod.
func namespaceOf(addr netip.Addr) (netns.NsHandle, error) {
	var seen []os.FileInfo
	for _, pid := range processes() {
		file := fmt.Sprintf("/proc/%d/ns/net", pid)
		info, err := os.Stat(file)
		if err != nil || slices.ContainsFunc(seen, func(other os.FileInfo) bool { return os.SameFile(info, other) }) {
			continue // it has ended
		}
		seen = append(seen, info)
		ns, err := netns.GetFromPath(file)
		if err != nil {
			continue
		}
		if has, err := hasAddress(ns, addr); err == nil && has {
			return ns, nil
		}
		_ = ns.Close()
	}
	return netns.None(), fmt.Errorf("finding the network namespace that has %s: no process is in one", addr)
}

func hasAddress(ns netns.NsHandle, addr netip.Addr) (bool, error) {
	found := false
	err := within(ns, func() error {
		addresses, err := net.InterfaceAddrs()
		found = slices.ContainsFunc(addresses, func(a net.Addr) bool {
			prefix, err := netip.ParsePrefix(a.String())
			return err == nil && prefix.Addr() == addr
		})
		return err
	})
	return found, err
}

// processes lists the machine's processes by their numbers.
func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// agentOn returns the process of the agent that runs on a node, or 0.
func agentOn(node string) int {
	home, err := os.Stat(filepath.Join("/run/netns", "moat-"+node))
	if err != nil {
		return 0
	}
	for _, pid := range processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		words := strings.Split(string(line), "\x00")
		if err != nil || len(words) < 2 || filepath.Base(words[0]) != "moat" || words[1] != "agent" {
			continue
		}
		if info, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && os.SameFile(home, info) {
			return pid
		}
	}
	return 0
}

// daemonOn returns the process of a daemon that hack/cluster runs on a node.
func daemonOn(node, daemon string) (int, error) {
	record, err := os.ReadFile(filepath.Join("/var/lib/moat-cluster/pids", node, daemon))
	if err != nil {
		return 0, fmt.Errorf("finding %s of %s: %w", daemon, node, err)
	}
	pid, _, _ := strings.Cut(string(record), " ")
	return strconv.Atoi(pid)
}
