//go:build linux

package build

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// component is one module of components/: what to build from it and how.
type component struct {
	name   string // its folder below components, and the name in the cache
	module string // the module whose version in go.mod is the component's

	binaries []binary

	tags       string // build tags
	versionVar string // the variable that the linker sets to the version
	cgo        bool
	packages   []DebianPackage // what the build needs beside Go

	// searchPath holds where ready binaries may lie; nil means PATH.
	searchPath []string
}

// binary is one program of a component.
type binary struct {
	name       string
	pkg        string
	versionCmd []string // arguments that make it print its version
}

const kubernetesCmd = "k8s.io/kubernetes/cmd/"

var (
	printVersion = []string{"--version"}
	cniPlugins   = "github.com/containernetworking/plugins/plugins/"
	containerd   = "github.com/containerd/containerd/v2"
)

// components is in the order of building: what tests need first.
var components = []component{
	{
		name: "etcd", module: "go.etcd.io/etcd/server/v3",
		binaries: []binary{{"etcd", "go.etcd.io/etcd/server/v3", printVersion}},
	},
	{
		name: "kubernetes", module: "k8s.io/kubernetes",
		versionVar: "k8s.io/component-base/version.gitVersion",
		binaries: []binary{
			{"kube-apiserver", kubernetesCmd + "kube-apiserver", printVersion},
			{"kube-controller-manager", kubernetesCmd + "kube-controller-manager", printVersion},
			{"kube-scheduler", kubernetesCmd + "kube-scheduler", printVersion},
			{"kubelet", kubernetesCmd + "kubelet", printVersion},
			{"kube-proxy", kubernetesCmd + "kube-proxy", printVersion},
			{"kubectl", kubernetesCmd + "kubectl", []string{"version", "--client"}},
		},
	},
	{
		name: "containerd", module: containerd,
		tags:       "no_btrfs no_devmapper no_zfs",
		versionVar: containerd + "/version.Version",
		binaries: []binary{
			{"containerd", containerd + "/cmd/containerd", printVersion},
			{"containerd-shim-runc-v2", containerd + "/cmd/containerd-shim-runc-v2", []string{"-v"}},
			{"ctr", containerd + "/cmd/ctr", printVersion},
		},
	},
	{
		name: "runc", module: "github.com/opencontainers/runc",
		tags: "seccomp", cgo: true,
		packages: []DebianPackage{{"gcc", "gcc"}, {"pkg-config", "pkg-config"}, {"", "libseccomp-dev"}, {"", "libc6-dev"}},
		binaries: []binary{{"runc", "github.com/opencontainers/runc", printVersion}},
	},
	{
		name: "cni", module: "github.com/containernetworking/plugins",
		versionVar: "github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion",
		// Not PATH: iproute2 has a program named bridge, too.
		searchPath: []string{"/opt/cni/bin"},
		binaries: []binary{
			{"bridge", cniPlugins + "main/bridge", nil},
			{"host-local", cniPlugins + "ipam/host-local", nil},
			{"loopback", cniPlugins + "main/loopback", nil},
			{"portmap", cniPlugins + "meta/portmap", nil},
		},
	},
	{
		name: "flannel", module: "github.com/flannel-io/flannel",
		versionVar: "github.com/flannel-io/flannel/pkg/version.Version",
		// Its udp backend is written in C on amd64.
		cgo:      true,
		packages: []DebianPackage{{"gcc", "gcc"}, {"", "libc6-dev"}},
		binaries: []binary{{"flanneld", "github.com/flannel-io/flannel", printVersion}},
	},
	{
		name: "helm", module: "helm.sh/helm/v4",
		versionVar: "helm.sh/helm/v4/internal/version.version",
		binaries:   []binary{{"helm", "helm.sh/helm/v4/cmd/helm", []string{"version", "--template", "{{.Version}}"}}},
	},
}

// pinnedVersion finds the version of module in the text of a go.mod.
func pinnedVersion(goMod, module string) (string, error) {
	line := regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(module) + `\s+(v\S+)`)
	found := line.FindStringSubmatch(goMod)
	if found == nil {
		return "", fmt.Errorf("finding the version of %s: its go.mod requires no such module", module)
	}
	return found[1], nil
}

// version is the one that the component's go.mod pins.
func (c component) version(checkout string) (string, error) {
	goMod, err := os.ReadFile(filepath.Join(c.dir(checkout), "go.mod"))
	if err != nil {
		return "", fmt.Errorf("reading the pinned version of %s: %w", c.name, err)
	}
	return pinnedVersion(string(goMod), c.module)
}

func (c component) dir(checkout string) string {
	return filepath.Join(checkout, "hack", "cluster", "components", c.name)
}

// wanted is a component and those of its binaries that are asked for.
type wanted struct {
	component
	names []string
}

// UnknownNameError says that no component and no binary has that name.
type UnknownNameError struct{ name string }

func (e UnknownNameError) Error() string {
	return fmt.Sprintf("unknown component %q: choose from %s", e.name, strings.Join(ComponentNames(), ", "))
}

// selectBinaries resolves names of components and of single binaries; without
// names it selects everything.
func selectBinaries(names []string) ([]wanted, error) {
	var selection []wanted
	known := map[string]bool{}
	for _, c := range components {
		w := wanted{component: c}
		known[c.name] = true
		for _, b := range c.binaries {
			known[b.name] = true
			if len(names) == 0 || slices.Contains(names, c.name) || slices.Contains(names, b.name) {
				w.names = append(w.names, b.name)
			}
		}
		if len(w.names) > 0 {
			selection = append(selection, w)
		}
	}
	for _, name := range names {
		if !known[name] {
			return nil, UnknownNameError{name}
		}
	}
	return selection, nil
}

// ComponentNames are the names of all components, in the order of building.
func ComponentNames() []string {
	var names []string
	for _, c := range components {
		names = append(names, c.name)
	}
	return names
}

// only returns the binaries of c that have the given names.
func (c component) only(names []string) []binary {
	var selected []binary
	for _, b := range c.binaries {
		if slices.Contains(names, b.name) {
			selected = append(selected, b)
		}
	}
	return selected
}
