//go:build linux

package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

const containerdTimeout = time.Minute

// configureNode writes the configuration of everything that runs on the node.
func configureNode(r *machine.Record, n machine.Machine, pause string) error {
	for _, dir := range []string{"cni", "opt"} {
		if err := os.MkdirAll(n.Path(dir), 0o755); err != nil {
			return fmt.Errorf("making a folder of %s: %w", n.Name, err)
		}
	}
	for _, file := range []struct {
		name, template string
		values         map[string]any
	}{
		{"containerd.toml", "containerd.toml", containerdValues(r, n, pause)},
		{"kubelet.yaml", "kubelet.yaml", map[string]any{
			"Authority":   certificateFile("ca"),
			"Certificate": certificateFile(n.Name),
			"Key":         keyFile(n.Name),
			"PodsCgroup":  n.PodsCgroup(),
		}},
		{"kube-proxy.yaml", "kube-proxy.yaml", map[string]any{
			"Mode":         r.Options.ProxyMode,
			"ClusterCIDRs": machine.Joined(machine.ClusterCIDRs(r.Options.IPFamily)),
			"Node":         n.Name,
			"Kubeconfig":   kubeconfig(n, "kube-proxy"),
		}},
	} {
		if err := writeTemplate(n.Path("config", file.name), file.template, file.values); err != nil {
			return err
		}
	}
	return nil
}

func containerdValues(r *machine.Record, n machine.Machine, pause string) map[string]any {
	var folders []string
	for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap"} {
		folders = append(folders, filepath.Dir(r.Binaries[plugin]))
	}
	return map[string]any{
		"Dir":         n.Dir(),
		"Snapshotter": r.Snapshotter,
		"Pause":       pause,
		"CNIFolders":  slices.Compact(folders),
		"Shim":        r.Binaries["containerd-shim-runc-v2"],
		"Runc":        r.Binaries["runc"],
	}
}

// startContainerd starts containerd and gives it the images that are cached.
func startContainerd(r *machine.Record, n machine.Machine, i Images) error {
	if err := configureNode(r, n, i.Pause); err != nil {
		return err
	}
	if err := n.MakePodsCgroup(); err != nil {
		return err
	}
	err := n.Start(machine.Daemon{Name: "containerd", Path: r.Binaries["containerd"], Args: []string{"--config", n.Path("config", "containerd.toml")}})
	if err != nil {
		return err
	}
	err = n.Await("containerd", "containerd of "+n.Name, containerdTimeout, func() (bool, error) {
		return ctr(r, n, nil, "version") == nil, nil
	})
	if err != nil {
		return err
	}
	for _, image := range i.Archives {
		if err := importImage(r, n, image); err != nil {
			return err
		}
	}
	return nil
}

// startKubelet starts kubelet and kube-proxy, which need the Node object.
func startKubelet(r *machine.Record, n machine.Machine) error {
	err := n.Start(machine.Daemon{Name: "kubelet", Path: r.Binaries["kubelet"], Args: []string{
		"--config=" + n.Path("config", "kubelet.yaml"),
		"--kubeconfig=" + kubeconfig(n, "kubelet"),
		"--hostname-override=" + n.Name,
		"--node-ip=" + machine.Joined(addrs(n.Addresses(r.Options.IPFamily))),
	}})
	if err != nil {
		return err
	}
	return n.Start(machine.Daemon{Name: "kube-proxy", Path: r.Binaries["kube-proxy"], Args: []string{"--config=" + n.Path("config", "kube-proxy.yaml")}})
}
