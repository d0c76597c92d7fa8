//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const containerdTimeout = time.Minute

// configureNode writes the configuration of everything that runs on the node.
func configureNode(r *record, n machine, pause string) error {
	for _, dir := range []string{"cni", "opt"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return fmt.Errorf("making a folder of %s: %w", n.name, err)
		}
	}
	for _, file := range []struct {
		name, template string
		values         map[string]any
	}{
		{"containerd.toml", "containerd.toml", containerdValues(r, n, pause)},
		{"kubelet.yaml", "kubelet.yaml", map[string]any{
			"Authority":   certificateFile("ca"),
			"Certificate": certificateFile(n.name),
			"Key":         keyFile(n.name),
			"PodsCgroup":  n.podsCgroup(),
		}},
		{"kube-proxy.yaml", "kube-proxy.yaml", map[string]any{
			"Mode":         r.Options.ProxyMode,
			"ClusterCIDRs": joined(clusterCIDRs(r.Options.IPFamily)),
			"Node":         n.name,
			"Kubeconfig":   kubeconfig(n, "kube-proxy"),
		}},
	} {
		if err := writeTemplate(n.path("config", file.name), file.template, file.values); err != nil {
			return err
		}
	}
	return nil
}

func containerdValues(r *record, n machine, pause string) map[string]any {
	var folders []string
	for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap"} {
		folders = append(folders, filepath.Dir(r.Binaries[plugin]))
	}
	return map[string]any{
		"Dir":         n.dir(),
		"Snapshotter": r.Snapshotter,
		"Pause":       pause,
		"CNIFolders":  slices.Compact(folders),
		"Shim":        r.Binaries["containerd-shim-runc-v2"],
		"Runc":        r.Binaries["runc"],
	}
}

// startContainerd starts containerd and gives it the images that are cached.
func startContainerd(r *record, n machine, i images) error {
	if err := configureNode(r, n, i.pause); err != nil {
		return err
	}
	if err := n.makePodsCgroup(); err != nil {
		return err
	}
	err := n.start(daemon{name: "containerd", path: r.Binaries["containerd"], args: []string{"--config", n.path("config", "containerd.toml")}})
	if err != nil {
		return err
	}
	err = n.await("containerd", "containerd of "+n.name, containerdTimeout, func() (bool, error) {
		return ctr(r, n, nil, "version") == nil, nil
	})
	if err != nil {
		return err
	}
	for _, image := range i.archives {
		if err := importImage(r, n, image); err != nil {
			return err
		}
	}
	return nil
}

// startKubelet starts kubelet and kube-proxy, which need the Node object.
func startKubelet(r *record, n machine) error {
	err := n.start(daemon{name: "kubelet", path: r.Binaries["kubelet"], args: []string{
		"--config=" + n.path("config", "kubelet.yaml"),
		"--kubeconfig=" + kubeconfig(n, "kubelet"),
		"--hostname-override=" + n.name,
		"--node-ip=" + joined(addrs(n.addresses(r.Options.IPFamily))),
	}})
	if err != nil {
		return err
	}
	return n.start(daemon{name: "kube-proxy", path: r.Binaries["kube-proxy"], args: []string{"--config=" + n.path("config", "kube-proxy.yaml")}})
}
