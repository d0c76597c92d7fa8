//go:build linux

package build

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPinnedVersion(t *testing.T) {
	goMod := `module example.com/m

require k8s.io/single v1.2.3

require (
	k8s.io/kubernetes-extra v9.9.9
	k8s.io/kubernetes v1.37.2 // indirect
	example.com/k8s.io/kubernetes v8.8.8
)
`
	for module, want := range map[string]string{
		"k8s.io/single":     "v1.2.3",
		"k8s.io/kubernetes": "v1.37.2",
	} {
		version, err := pinnedVersion(goMod, module)
		require.NoError(t, err)
		require.Equal(t, want, version)
	}
	_, err := pinnedVersion(goMod, "k8s.io/kube")
	require.ErrorContains(t, err, "k8s.io/kube")
}

// Every component's go.mod must pin its version and every package to build, or
// "go build" would ask for a download of its own choice.
func TestComponentsArePinned(t *testing.T) {
	checkout, err := FindCheckout()
	require.NoError(t, err)
	for _, c := range components {
		version, err := c.version(checkout)
		require.NoError(t, err)
		require.Regexp(t, `^v\d+\.\d+\.\d+$`, version, c.name)
		goMod, err := os.ReadFile(filepath.Join(c.dir(checkout), "go.mod"))
		require.NoError(t, err)
		for _, b := range c.binaries {
			require.Regexp(t, `(?m)^(tool)?\s+`+b.pkg+`$`, string(goMod), "tool directive for %s", b.name)
		}
	}
}

func TestSelectBinaries(t *testing.T) {
	selection, err := selectBinaries([]string{"etcd", "kubectl", "kube-apiserver"})
	require.NoError(t, err)
	got := map[string][]string{}
	for _, w := range selection {
		got[w.name] = w.names
	}
	require.Equal(t, map[string][]string{"etcd": {"etcd"}, "kubernetes": {"kube-apiserver", "kubectl"}}, got)

	all, err := selectBinaries(nil)
	require.NoError(t, err)
	require.Len(t, all, len(components))

	_, err = selectBinaries([]string{"kube-apiservr"})
	require.ErrorContains(t, err, `unknown component "kube-apiservr"`)
	require.ErrorAs(t, err, new(UnknownNameError))
}

func TestBuiltName(t *testing.T) {
	require.Equal(t, "server", builtName("go.etcd.io/etcd/server/v3"))
	require.Equal(t, "kubelet", builtName("k8s.io/kubernetes/cmd/kubelet"))
	require.Equal(t, "containerd-shim-runc-v2", builtName("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"))
	require.Equal(t, "v", builtName("example.com/v"))
}

func TestPrintedVersion(t *testing.T) {
	for output, want := range map[string]string{
		"Kubernetes v1.37.2\n":                                                    "v1.37.2",
		"Client Version: v1.37.2\nKustomize Version: v5.8.1":                      "v1.37.2",
		"etcd Version: 3.7.3\nGit SHA: Not provided":                              "v3.7.3",
		"containerd github.com/containerd/containerd/v2 v2.4.2 abc":               "v2.4.2",
		"CNI bridge plugin v1.9.1\nCNI protocol versions supported: 0.1.0, 1.0.0": "v1.9.1",
		"Kubernetes v1.37.2+k3s1":                                                 "v1.37.2+k3s1",
		"v1.37.2-rc.0":                                                            "v1.37.2-rc.0",
		"no version at all, v2":                                                   "",
	} {
		require.Equal(t, want, printedVersion(output), output)
	}
}

func TestReadyBinaryNeedsTheExactVersion(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "etcd")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho etcd Version: 3.7.3\n"), 0o755))
	t.Setenv("MOAT_CLUSTER_BIN", dir)
	t.Setenv("PATH", "/bin:/usr/bin")
	c := components[0]

	path, ok := readyBinary(c, c.binaries[0], "v3.7.3")
	require.True(t, ok)
	require.Equal(t, program, path)
	_, ok = readyBinary(c, c.binaries[0], "v3.7.4")
	require.False(t, ok)
}

func TestBuildLogTellsProgress(t *testing.T) {
	log := &buildLog{}
	require.Empty(t, log.progress())
	for _, text := range []string{"go: downloading example.com/m v1.0.0\n", "example.com/m/a\nexample.com/m/b\n"} {
		_, err := log.Write([]byte(text))
		require.NoError(t, err)
	}
	require.Equal(t, "2 packages, last example.com/m/b", log.progress())
	require.Equal(t, "go: downloading example.com/m v1.0.0\nexample.com/m/a\nexample.com/m/b", log.tail())
}
