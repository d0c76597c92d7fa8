package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane"
	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// noAPIServer makes sure that a command that gets past its flags finds no
// cluster.
func noAPIServer(t *testing.T) {
	t.Helper()
	t.Setenv("KUBECONFIG", t.TempDir()+"/missing")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("HOME", t.TempDir())
}

// A wrong flag ends with 2 and names the flag and what it takes.
func TestAgentRefusesFlags(t *testing.T) {
	noAPIServer(t)
	for name, test := range map[string]struct {
		args   []string
		stderr []string
	}{
		"no node name":       {nil, []string{"--node-name is empty", "NODE_NAME"}},
		"backend":            {[]string{"--iptables-backend=ebtables"}, []string{`--iptables-backend "ebtables"`, "auto, nft or legacy"}},
		"empty backend":      {[]string{"--iptables-backend="}, []string{"--iptables-backend", "auto, nft or legacy"}},
		"log level":          {[]string{"--log-level=loud"}, []string{`--log-level "loud"`, "info or debug"}},
		"unknown flag":       {[]string{"--nodename=x"}, []string{"-nodename", `see "moat agent --help"`}},
		"flag without value": {[]string{"--node-name"}, []string{"-node-name"}},
		"argument":           {[]string{"start"}, []string{`unexpected argument "start"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NODE_NAME", "")
			if name != "no node name" {
				t.Setenv("NODE_NAME", "node-1")
			}
			code, stdout, stderr := runMoat(t, append([]string{"agent"}, test.args...)...)
			require.Equal(t, exitUsage, code)
			require.Empty(t, stdout)
			for _, text := range append(test.stderr, "moat: agent: ") {
				require.Contains(t, stderr, text)
			}
		})
	}
}

// The flags are right, so what is missing is the cluster: that is no usage error.
func TestAgentWithoutClusterConfiguration(t *testing.T) {
	noAPIServer(t)
	t.Setenv("NODE_NAME", "node-1")
	code, _, stderr := runMoat(t, "agent", "--iptables-backend=nft")
	require.Equal(t, exitError, code)
	require.Contains(t, stderr, "finding the API server")
	require.Contains(t, stderr, "KUBECONFIG")
}

func TestAgentFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "from-environment")
	t.Setenv("POD_NAMESPACE", "moat-system")
	t.Setenv("POD_NAME", "moat-agent-x")
	flags, options := agentFlags()
	require.Equal(t, health.Holder{Namespace: "moat-system", Pod: "moat-agent-x"}, options.pod)
	require.NoError(t, parseFlags(flags, nil))
	require.NoError(t, options.validate())
	require.Equal(t, "from-environment", options.nodeName)
	require.Equal(t, iptables.Backend(""), backends[options.backend], "the node's own choice")

	flags, options = agentFlags()
	require.NoError(t, parseFlags(flags, []string{"--node-name=from-flag", "--iptables-backend=legacy"}))
	require.NoError(t, options.validate())
	require.Equal(t, "from-flag", options.nodeName)
	require.Equal(t, iptables.Legacy, backends[options.backend])
}

func TestAntiSpoofingFlag(t *testing.T) {
	t.Setenv("NODE_NAME", "node-1")
	_, options := agentFlags()
	require.Equal(t, string(dataplane.SpoofingCount), options.antiSpoofing)
	code, _, stderr := runMoat(t, "agent", "--anti-spoofing=drop")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, `--anti-spoofing "drop": use Off, Count or Drop`)
}

func TestBudgetFlags(t *testing.T) {
	noAPIServer(t)
	t.Setenv("NODE_NAME", "node-1")
	for flag, want := range map[string]string{
		"--budget-mode=Off":             `--budget-mode "Off": use Enforce or Report`,
		"--budget-policy=sets=40001":    `--budget-policy: "sets=40001": want a number of sets from 1 to 40000`,
		"--budget-namespace=memory=1":   `--budget-namespace: "memory": want one of prefixes, rules, sets, elements`,
		"--budget-node=elements=-1":     `--budget-node: "elements=-1": want a number of elements`,
		"--budget-node=elements=700000": "", // it gets as far as to look for the cluster
	} {
		code, _, stderr := runMoat(t, "agent", flag)
		require.Contains(t, stderr, want)
		require.Equal(t, want != "", code == exitUsage, stderr)
	}
}
