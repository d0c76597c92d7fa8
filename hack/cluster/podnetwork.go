//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	flannelTimeout = 30 * time.Second
	ethernetMTU    = "1500"
)

// startPodNetwork connects the nodes' pods. Where flanneld doesn't come up, it
// says why and falls back to static routes.
func startPodNetwork(r *record) error {
	all := nodes(r.Options.Nodes)
	if r.Network == networkVXLAN {
		err := inParallel(all, func(n machine) error { return startFlannel(r, n) })
		if err == nil {
			return nil
		}
		say("flanneld doesn't come up; using static routes (hostgw) in its place: %v", err)
		if err := inParallel(all, stopFlannel); err != nil {
			return err
		}
		r.Network = networkHostGW
	}
	return inParallel(all, func(n machine) error { return startHostGateway(r, n) })
}

func subnetFile(n machine) string { return n.path("flannel", "subnet.env") }

// startFlannel runs flanneld and makes the bridge configuration of its subnet
// file, as flannel's CNI plugin would.
func startFlannel(r *record, n machine) error {
	values := map[string]string{"NetworkV4": clusterCIDRv4.String(), "NetworkV6": ""}
	if r.Options.IPFamily == familyDual {
		values["NetworkV6"] = clusterCIDRv6.String()
	}
	if err := writeTemplate(n.path("config", "flannel.json"), "flannel.json", values); err != nil {
		return err
	}
	if err := os.MkdirAll(n.path("flannel"), 0o755); err != nil {
		return fmt.Errorf("making a folder of %s: %w", n.name, err)
	}
	err := n.start(daemon{name: "flanneld", path: r.Binaries["flanneld"], env: []string{"NODE_NAME=" + n.name}, args: []string{
		"-kube-subnet-mgr",
		"-kubeconfig-file=" + kubeconfig(n, "flanneld"),
		"-net-config-path=" + n.path("config", "flannel.json"),
		"-iface=" + linkName,
		"-ip-masq",
		"-subnet-file=" + subnetFile(n),
	}})
	if err != nil {
		return err
	}
	var env map[string]string
	err = n.await("flanneld", "flanneld of "+n.name, flannelTimeout, func() (bool, error) {
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
func writeCNIConfig(r *record, n machine, mtu string) error {
	family := r.Options.IPFamily
	return writeTemplate(n.path("cni", "10-cluster.conflist"), "cni.json", map[string]any{
		"MTU":      mtu,
		"Subnets":  n.podCIDRs(family),
		"Networks": clusterCIDRs(family),
	})
}

// stopFlannel takes a failed flanneld's process and devices away.
func stopFlannel(n machine) error {
	if err := n.stop("flanneld"); err != nil {
		return err
	}
	return n.inNetns(func() error {
		for _, device := range []string{"flannel.1", "flannel-v6.1"} {
			if err := removeLink(device); err != nil {
				return err
			}
		}
		return nil
	})
}

// startHostGateway routes to the other nodes' pods and hides the node's pods
// behind its address when they leave the cluster, as flanneld -ip-masq does.
func startHostGateway(r *record, n machine) error {
	family := r.Options.IPFamily
	var others []machine
	for _, other := range nodes(r.Options.Nodes) {
		if other != n {
			others = append(others, other)
		}
	}
	if err := n.inNetns(func() error { return routesToPods(others, family) }); err != nil {
		return err
	}
	for _, cidr := range clusterCIDRs(family) {
		iptables := "iptables"
		if cidr.Addr().Is6() {
			iptables = "ip6tables"
		}
		rule := []string{"-w", "-t", "nat", "-A", "POSTROUTING", "-s", cidr.String(), "!", "-d", cidr.String(),
			"-m", "comment", "--comment", "pods leave the cluster", "-j", "MASQUERADE"}
		cmd := exec.Command(iptables, rule...)
		err := n.inside(func() error {
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("adding the masquerade rule of %s: %w: %s", n.name, err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return writeCNIConfig(r, n, ethernetMTU)
}
