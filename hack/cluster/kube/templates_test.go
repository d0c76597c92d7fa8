//go:build linux

package kube

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

func TestKubeletTemplate(t *testing.T) {
	text, err := render("kubelet.yaml", map[string]any{
		"Authority": "/pki/ca.crt", "Certificate": "/pki/n.crt", "Key": "/pki/n.key", "PodsCgroup": "/moat-cluster/node-1/pods",
	})
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &config))
	require.Equal(t, "KubeletConfiguration", config["kind"])
	require.Equal(t, "/moat-cluster/node-1/pods", config["cgroupRoot"])
	require.Equal(t, "/pki/n.crt", config["tlsCertFile"])
}

func TestTemplatesRefuseMissingValues(t *testing.T) {
	_, err := render("kubelet.yaml", map[string]any{})
	require.ErrorContains(t, err, "kubelet.yaml")
}

func TestKubeProxyTemplate(t *testing.T) {
	text, err := render("kube-proxy.yaml", map[string]any{
		"Mode": machine.ProxyNFTables, "ClusterCIDRs": machine.Joined(machine.ClusterCIDRs(machine.FamilyDual)), "Node": "node-1", "Kubeconfig": "/k",
	})
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &config))
	require.Equal(t, "nftables", config["mode"])
	require.Equal(t, "10.244.0.0/16,fd00:10:244::/48", config["clusterCIDR"])
}

func TestBootstrapTemplate(t *testing.T) {
	list := []nodeManifest{{"node-1", machine.Node(1).PodCIDRs(machine.FamilyDual)}, {"node-2", machine.Node(2).PodCIDRs(machine.FamilyDual)}}
	text, err := render("bootstrap.yaml", map[string]any{"Nodes": list})
	require.NoError(t, err)
	documents := strings.Split(text, "---\n")
	require.Len(t, documents, 4, "two nodes, a role and its binding")
	var second corev1.Node
	require.NoError(t, yaml.UnmarshalStrict([]byte(documents[1]), &second))
	require.Equal(t, "node-2", second.Name)
	require.Equal(t, "10.244.2.0/24", second.Spec.PodCIDR)
	require.Equal(t, []string{"10.244.2.0/24", "fd00:10:244:2::/64"}, second.Spec.PodCIDRs)
	require.NotEmpty(t, second.Annotations, "flanneld panics without any")
}

func TestCNITemplate(t *testing.T) {
	for _, family := range []machine.IPFamily{machine.FamilyIPv4, machine.FamilyDual} {
		text, err := render("cni.json", map[string]any{
			"MTU": "1450", "Subnets": machine.Node(1).PodCIDRs(family), "Networks": machine.ClusterCIDRs(family),
		})
		require.NoError(t, err)
		var config struct {
			Plugins []struct {
				Type string
				MTU  int
				IPAM struct {
					Ranges [][]struct{ Subnet string }
					Routes []struct{ Dst string }
				}
			}
		}
		require.NoError(t, json.Unmarshal([]byte(text), &config))
		require.Equal(t, "bridge", config.Plugins[0].Type)
		require.Equal(t, 1450, config.Plugins[0].MTU)
		ranges := config.Plugins[0].IPAM.Ranges
		require.Len(t, ranges, len(machine.ClusterCIDRs(family)), "one range for each family")
		require.Equal(t, "10.244.1.0/24", ranges[0][0].Subnet)
		require.Len(t, config.Plugins[0].IPAM.Routes, len(ranges))
	}
}

func TestFlannelTemplate(t *testing.T) {
	for networkV6, want := range map[string]bool{"": false, machine.ClusterCIDRv6.String(): true} {
		text, err := render("flannel.json", map[string]string{"NetworkV4": machine.ClusterCIDRv4.String(), "NetworkV6": networkV6})
		require.NoError(t, err)
		config := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(text), &config))
		require.Equal(t, "10.244.0.0/16", config["Network"])
		require.Equal(t, want, config["EnableIPv6"] == true)
	}
}

func TestContainerdTemplate(t *testing.T) {
	r := &machine.Record{Snapshotter: "native", Binaries: map[string]string{
		"bridge": "/a/bridge", "host-local": "/a/host-local", "loopback": "/b/loopback", "portmap": "/b/portmap",
		"containerd-shim-runc-v2": "/c/shim", "runc": "/d/runc",
	}}
	text, err := render("containerd.toml", containerdValues(r, machine.Node(1), "example.com/pause:1"))
	require.NoError(t, err)
	require.Contains(t, text, `bin_dirs = ["/a", "/b"]`)
	require.Contains(t, text, `snapshotter = "native"`)
	require.Contains(t, text, `BinaryName = "/d/runc"`)
	require.Contains(t, text, `sandbox = "example.com/pause:1"`)
}
