//go:build linux

package kube

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/moat-dev/moat/hack/cluster/machine"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

const (
	flannelTimeout = 30 * time.Second
	ethernetMTU    = "1500"
)

// startPodNetwork connects the nodes' pods. Where flanneld doesn't come up, it
// says why and falls back to static routes.
func startPodNetwork(r *machine.Record) error {
	all := machine.Nodes(r.Options.Nodes)
	if r.Network == machine.NetworkVXLAN {
		err := progress.InParallel(all, func(n machine.Machine) error { return startFlannel(r, n) })
		if err == nil {
			return nil
		}
		progress.Say("flanneld doesn't come up; using static routes (hostgw) in its place: %v", err)
		if err := progress.InParallel(all, stopFlannel); err != nil {
			return err
		}
		r.Network = machine.NetworkHostGW
	}
	return progress.InParallel(all, func(n machine.Machine) error { return startHostGateway(r, n) })
}

func subnetFile(n machine.Machine) string { return n.Path("flannel", "subnet.env") }

// startFlannel runs flanneld and makes the bridge configuration of its subnet
// file, as flannel's CNI plugin would.
func startFlannel(r *machine.Record, n machine.Machine) error {
	values := map[string]string{"NetworkV4": machine.ClusterCIDRv4.String(), "NetworkV6": ""}
	if r.Options.IPFamily == machine.FamilyDual {
		values["NetworkV6"] = machine.ClusterCIDRv6.String()
	}
	if err := writeTemplate(n.Path("config", "flannel.json"), "flannel.json", values); err != nil {
		return err
	}
	if err := os.MkdirAll(n.Path("flannel"), 0o755); err != nil {
		return fmt.Errorf("making a folder of %s: %w", n.Name, err)
	}
	err := n.Start(machine.Daemon{Name: "flanneld", Path: r.Binaries["flanneld"], Env: []string{"NODE_NAME=" + n.Name}, Args: []string{
		"-kube-subnet-mgr",
		"-kubeconfig-file=" + kubeconfig(n, "flanneld"),
		"-net-config-path=" + n.Path("config", "flannel.json"),
		"-iface=" + machine.LinkName,
		"-ip-masq",
		"-subnet-file=" + subnetFile(n),
	}})
	if err != nil {
		return err
	}
	var env map[string]string
	err = n.Await("flanneld", "flanneld of "+n.Name, flannelTimeout, func() (bool, error) {
		env = readEnv(subnetFile(n))
		return env["FLANNEL_MTU"] != "", nil
	})
	if err != nil {
		return err
	}
	return writeCNIConfig(r, n, env["FLANNEL_MTU"])
}

// readEnv reads NAME=VALUE lines; a file that isn't there yet is empty.
func readEnv(path string) map[string]string {
	data, _ := os.ReadFile(path)
	env := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			env[name] = value
		}
	}
	return env
}

// writeCNIConfig tells containerd how to connect pods; the node is Ready then.
func writeCNIConfig(r *machine.Record, n machine.Machine, mtu string) error {
	family := r.Options.IPFamily
	return writeTemplate(n.Path("cni", "10-cluster.conflist"), "cni.json", map[string]any{
		"MTU":      mtu,
		"Subnets":  n.PodCIDRs(family),
		"Networks": machine.ClusterCIDRs(family),
	})
}

// stopFlannel takes a failed flanneld's process and devices away.
func stopFlannel(n machine.Machine) error {
	if err := n.Stop("flanneld"); err != nil {
		return err
	}
	return n.InNetns(func() error {
		for _, device := range []string{"flannel.1", "flannel-v6.1"} {
			if err := machine.RemoveLink(device); err != nil {
				return err
			}
		}
		return nil
	})
}

// startHostGateway routes to the other nodes' pods and hides the node's pods
// behind its address when they leave the cluster, as flanneld -ip-masq does.
func startHostGateway(r *machine.Record, n machine.Machine) error {
	family := r.Options.IPFamily
	var others []machine.Machine
	for _, other := range machine.Nodes(r.Options.Nodes) {
		if other != n {
			others = append(others, other)
		}
	}
	if err := n.InNetns(func() error { return machine.RoutesToPods(others, family) }); err != nil {
		return err
	}
	for _, cidr := range machine.ClusterCIDRs(family) {
		iptables := "iptables"
		if cidr.Addr().Is6() {
			iptables = "ip6tables"
		}
		rule := []string{"-w", "-t", "nat", "-A", "POSTROUTING", "-s", cidr.String(), "!", "-d", cidr.String(),
			"-m", "comment", "--comment", "pods leave the cluster", "-j", "MASQUERADE"}
		cmd := exec.Command(iptables, rule...)
		err := n.Inside(func() error {
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("adding the masquerade rule of %s: %w: %s", n.Name, err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return writeCNIConfig(r, n, ethernetMTU)
}
