package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// cleanUp runs the command in a network of its own, without a cluster.
func cleanUp(t *testing.T, node *nodetest.Node, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	require.NoError(t, node.Do(func() error {
		code = run(t.Context(), append([]string{"agent", "cleanup"}, args...), &out, &errs)
		return nil
	}))
	return code, out.String(), errs.String()
}

func TestCleanup(t *testing.T) {
	nodetest.RequireKernel(t)
	noAPIServer(t)
	t.Setenv("NODE_NAME", "")
	node := nodetest.NewNode(t)
	inNode := func(command string) {
		require.NoError(t, node.Do(func() error { return exec.Command("sh", "-c", command).Run() }))
	}
	inNode("ipset create moat-4-egress hash:ip && iptables-nft -t mangle -N MOAT-FORWARD && iptables-nft -t mangle -A FORWARD -j MOAT-FORWARD")
	code, stdout, stderr := cleanUp(t, node)
	require.Equal(t, exitOK, code, stderr)
	require.Empty(t, stderr)
	require.Contains(t, stdout, "iptables-nft, IPv4: removed 1 chains and the hooks in FORWARD\n")
	require.Contains(t, stdout, "ipset: removed 1 sets\n")
	require.Contains(t, stdout, "nothing of Moat is left on this node\n")

	inNode("ipset create moat-4-egress hash:ip && ipset create holder list:set && ipset add holder moat-4-egress")
	code, stdout, stderr = cleanUp(t, node)
	require.Equal(t, exitError, code)
	require.NotContains(t, stdout, "nothing of Moat")
	require.Contains(t, stderr, "moat: cleaning up the node: removing ipsets: still in use: moat-4-egress")
}

// The agent's default address is looked at, and another one where it is given.
func TestCleanupLooksForAnAgent(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	for _, address := range []string{"127.0.0.1:9471", "127.0.0.1:9999"} {
		var listener net.Listener
		require.NoError(t, node.Do(func() (err error) {
			listener, err = net.Listen("tcp", address)
			return err
		}))
		go func() {
			conn, err := listener.Accept()
			if err == nil {
				_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"))
				_, _ = conn.Read(make([]byte, 4096))
				_ = conn.Close()
			}
		}()
		var args []string
		if address != defaultHealthAddress {
			args = []string{"--health-address=" + address}
		}
		code, stdout, stderr := cleanUp(t, node, args...)
		require.Equal(t, exitError, code)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "asking http://"+address+"/healthz: an agent still runs on this node")
		require.NoError(t, listener.Close())
	}
}

// The DaemonSet of the documentation is one, and its command is one.
func TestTheDocumentedCleanup(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, text, found := bytes.Cut(text, []byte("```yaml\n"))
	require.True(t, found)
	text, _, _ = bytes.Cut(text, []byte("```"))
	daemonSet := &appsv1.DaemonSet{}
	require.NoError(t, yaml.UnmarshalStrict(text, daemonSet))
	pod := daemonSet.Spec.Template.Spec
	require.True(t, pod.HostNetwork)
	require.Equal(t, daemonSet.Spec.Selector.MatchLabels, daemonSet.Spec.Template.Labels)
	container := pod.InitContainers[0]
	require.EqualValues(t, 0, *container.SecurityContext.RunAsUser, "the image's user may not change netfilter")
	require.Equal(t, "/run/xtables.lock", container.VolumeMounts[0].MountPath)

	code, stdout, stderr := runMoat(t, append(container.Args, "--help")...)
	require.Equal(t, exitOK, code, stderr)
	require.True(t, strings.HasPrefix(stdout, "Usage: moat agent cleanup [flags]\n"))
	require.Contains(t, stdout, "Removes every trace of Moat")
}
