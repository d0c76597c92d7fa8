//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const containerdTimeout = time.Minute

// configureNode writes the configuration of everything that runs on the node.
func configureNode(r *record, n machine) error {
	for _, dir := range []string{"cni", "opt"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return fmt.Errorf("making a folder of %s: %w", n.name, err)
		}
	}
	for _, file := range []struct {
		name, template string
		values         map[string]any
	}{
		{"containerd.toml", "containerd.toml", containerdValues(r, n)},
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
			"Kubeconfig":   n.kubeconfig("kube-proxy"),
		}},
	} {
		if err := writeTemplate(n.path("config", file.name), file.template, file.values); err != nil {
			return err
		}
	}
	return nil
}

func containerdValues(r *record, n machine) map[string]any {
	var folders []string
	for _, plugin := range []string{"bridge", "host-local", "loopback", "portmap"} {
		folders = append(folders, filepath.Dir(r.Binaries[plugin]))
	}
	return map[string]any{
		"Dir":         n.dir(),
		"Snapshotter": r.Snapshotter,
		"Pause":       pauseImage,
		"CNIFolders":  slices.Compact(folders),
		"Shim":        r.Binaries["containerd-shim-runc-v2"],
		"Runc":        r.Binaries["runc"],
	}
}

// startContainerd starts containerd and gives it the images that are cached.
func startContainerd(r *record, n machine, images []string) error {
	if err := configureNode(r, n); err != nil {
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
	for _, image := range images {
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
		"--kubeconfig=" + n.kubeconfig("kubelet"),
		"--hostname-override=" + n.name,
		"--node-ip=" + joined(addrs(n.addresses(r.Options.IPFamily))),
	}})
	if err != nil {
		return err
	}
	return n.start(daemon{name: "kube-proxy", path: r.Binaries["kube-proxy"], args: []string{"--config=" + n.path("config", "kube-proxy.yaml")}})
}

// stop ends a daemon and forgets it: it isn't dead by accident.
func (m machine) stop(daemon string) error {
	file := filepath.Join(pidDir, m.name, daemon)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading a process record: %w", err)
	}
	p, err := parseProcess(string(data))
	if err != nil {
		return err
	}
	p.machine, p.name = m.name, daemon
	if err := p.kill(); err != nil {
		return err
	}
	if err := waitGone([]process{p}); err != nil {
		return fmt.Errorf("waiting for the end of %s: %w", daemon, err)
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("removing a process record: %w", err)
	}
	return nil
}
