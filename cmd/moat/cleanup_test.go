package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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

// With --stay the pod is ready once the node is clean, and ends when it is told to.
func TestCleanupStays(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.NoError(t, node.Do(exec.Command("ipset", "create", "moat-4-egress", "hash:ip").Run))
	out, ended := &output{}, make(chan int, 1)
	go func() {
		_ = node.Do(func() error {
			ended <- run(ctx, []string{"agent", "cleanup", "--stay"}, out, out)
			return nil
		})
	}()
	ready := func() bool {
		var answer []byte
		_ = node.Do(func() error {
			conn, err := net.Dial("tcp", defaultHealthAddress)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write([]byte("GET /readyz HTTP/1.0\r\n\r\n"))
			answer, err = io.ReadAll(conn)
			return err
		})
		return strings.Contains(string(answer), "200 OK")
	}
	require.Eventually(t, ready, 20*time.Second, 20*time.Millisecond)
	require.Contains(t, out.String(), "nothing of Moat is left on this node\n")
	require.Empty(t, ended)
	cancel()
	require.Equal(t, exitOK, <-ended, out.String())
}

// output may be written and read at the same time.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
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

// What config/uninstall runs on each node is a command of this program, with what it
// needs, and says by its readiness that the node is clean.
func TestConfigUninstallCleans(t *testing.T) {
	text, err := os.ReadFile("../../config/uninstall/cleanup.yaml")
	require.NoError(t, err)
	daemonSet := &appsv1.DaemonSet{}
	require.NoError(t, yaml.UnmarshalStrict(text, daemonSet))
	pod := daemonSet.Spec.Template.Spec
	require.True(t, pod.HostNetwork)
	require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, pod.Tolerations)
	container := pod.Containers[0]
	require.EqualValues(t, 0, *container.SecurityContext.RunAsUser, "the image's user may not change netfilter")
	require.Equal(t, "/run/xtables.lock", container.VolumeMounts[0].MountPath)
	require.Contains(t, container.Args, "--stay")
	probe := container.ReadinessProbe.HTTPGet
	require.Equal(t, defaultHealthAddress, net.JoinHostPort(probe.Host, probe.Port.String()))

	code, stdout, stderr := runMoat(t, append(container.Args, "--help")...)
	require.Equal(t, exitOK, code, stderr)
	require.True(t, strings.HasPrefix(stdout, "Usage: moat agent cleanup [flags]\n"))
	require.Contains(t, stdout, "Removes every trace of Moat")
}
