package charts_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The agents' metrics are on all addresses of a node unless the values say otherwise.
func TestWhereTheAgentsMetricsAre(t *testing.T) {
	const agent = "DaemonSet/moat-agent"
	for value, flag := range map[string]string{
		"All": "--metrics-address=:9470\n", "NodeIP": "--metrics-address=[$(NODE_IP)]:9470\n",
		"Loopback": "--metrics-address=127.0.0.1:9470\n", "None": "--metrics-address=0\n",
	} {
		text := render(t, "--set", "agent.metricsListen="+value)[agent].text
		require.Contains(t, text, flag, value)
		require.Equal(t, value == "NodeIP", strings.Contains(text, "fieldPath: status.hostIP"), value)
	}
	require.Contains(t, render(t)[agent].text, "--metrics-address=:9470\n")
}
