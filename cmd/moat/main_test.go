package main

import (
	"bytes"
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// runMoat runs a command that must end by itself.
func runMoat(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestUsage(t *testing.T) {
	for name, test := range map[string]struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		"nothing":              {nil, 2, "", "Usage: moat <command>"},
		"help":                 {[]string{"help"}, 0, "Usage: moat <command>", ""},
		"version":              {[]string{"version"}, 0, "moat ", ""},
		"unknown command":      {[]string{"enforce"}, 2, "", `unknown command "enforce"`},
		"operator help":        {[]string{"operator", "--help"}, 0, "-leader-elect", ""},
		"agent help":           {[]string{"agent", "-h"}, 0, "-node-name", ""},
		"cleanup help":         {[]string{"agent", "cleanup", "--help"}, 0, "Usage: moat agent cleanup [flags]", ""},
		"cleanup argument":     {[]string{"agent", "cleanup", "now"}, 2, "", `unexpected argument "now"`},
		"cleanup address":      {[]string{"agent", "cleanup", "--health-address=here"}, 2, "", `--health-address "here": want host:port`},
		"unknown flag":         {[]string{"operator", "--leader"}, 2, "", "operator: flag provided but not defined: -leader; see \"moat operator --help\""},
		"wrong value":          {[]string{"operator", "--leader-elect=perhaps"}, 2, "", "leader-elect"},
		"argument":             {[]string{"operator", "now"}, 2, "", `unexpected argument "now"`},
		"unknown log level":    {[]string{"operator", "--agent-namespace=moat-system", "--log-level=loud"}, 2, "", `--log-level "loud": use info or debug`},
		"unknown log format":   {[]string{"agent", "--node-name=a", "--log-format=yaml"}, 2, "", `--log-format "yaml": use text or json`},
		"unknown absence":      {[]string{"operator", "--agent-namespace=moat-system", "--absent-agents=Cordon"}, 2, "", `--absent-agents "Cordon": use Ignore, Report or Taint`},
		"unknown reporting":    {[]string{"operator", "--agent-namespace=moat-system", "--report-network-policies=Some"}, 2, "", `--report-network-policies "Some": use All, Generated or None`},
		"no namespace":         {[]string{"operator", "--agent-namespace="}, 2, "", "--agent-namespace is empty"},
		"unknown agent flag":   {[]string{"agent", "--leader-elect"}, 2, "", "agent: flag provided but not defined: -leader-elect"},
		"profiles for others":  {[]string{"agent", "--node-name=a", "--pprof-address=:6060"}, 2, "", `--pprof-address ":6060": has to be on the loopback`},
		"selftest help":        {[]string{"selftest", "--help"}, 0, "-pod name", ""},
		"selftest elsewhere":   {[]string{"selftest", "--namespace=moat-system", "--pod="}, 2, "", "--namespace or --pod is empty: run it with helm test"},
		"selftest address":     {[]string{"selftest", "serve", "--address=here"}, 2, "", `--address "here": want host:port`},
		"agent without a node": {[]string{"agent", "--node-name="}, 2, "", "--node-name is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runMoat(t, test.args...)
			require.Equal(t, test.code, code)
			require.Contains(t, stdout, test.stdout)
			require.Contains(t, stderr, test.stderr)
			if test.stderr == "" {
				require.Empty(t, stderr)
			}
		})
	}
}

func TestVersionFromTheLinker(t *testing.T) {
	version = "v1.2.3"
	t.Cleanup(func() { version = "" })
	_, stdout, _ := runMoat(t, "version")
	require.Equal(t, "moat v1.2.3\n", stdout)
}

// TestUnreachableAPIServer: the operator says so and ends with 1, so that
// kubelet restarts it.
func TestUnreachableAPIServer(t *testing.T) {
	t.Setenv("KUBECONFIG", kubeconfigFor(t, "https://127.0.0.1:1"))
	var out, errs bytes.Buffer
	code := run(context.Background(), []string{"operator", "--agent-namespace=moat-system", "--metrics-address=0", "--health-address=127.0.0.1:0"}, &out, &errs)
	require.Equal(t, exitError, code)
	require.Contains(t, errs.String(), "127.0.0.1:1")
	require.Contains(t, errs.String(), "connection refused")
}
