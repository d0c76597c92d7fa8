package charts_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// notes returns what Helm says at the end of an installation.
func notes(t *testing.T, values string) string {
	t.Helper()
	args := []string{"install", "moat", chart, "--namespace", namespace, "--dry-run=client"}
	if values != "" {
		args = append(args, "--set-json", values)
	}
	out, err := helm(t, args...)
	require.NoError(t, err)
	_, notes, found := strings.Cut(out, "\nNOTES:\n")
	require.True(t, found, out)
	return notes
}

func TestNotesSayWhatToDoNext(t *testing.T) {
	text := notes(t, "")
	require.NotContains(t, text, "WARNING", "the defaults have nothing to warn of")
	require.Contains(t, text, "helm test moat -n moat-system")
	require.Contains(t, text, "kubectl wait --for=condition=Enforced")
}

// Helm shows an upgrade's notes only on a cluster, but renders them here, too.
func TestNotesOfAnUpgradeRender(t *testing.T) {
	for _, strategy := range []string{"RollingUpdate", "OnDelete"} {
		_, err := template(t, "--is-upgrade", "--set", "agent.updateStrategy.type="+strategy)
		require.NoError(t, err)
	}
}

// What is said to be installed is what is pulled.
func TestNotesNameTheImage(t *testing.T) {
	require.Contains(t, notes(t, ""), "from ghcr.io/moat-dev/moat:"+appVersion(t))
	require.Contains(t, notes(t, `image.digest="`+digest+`",global.imageRegistry="example.com"`), "from example.com/moat-dev/moat@"+digest)
}

func TestNotesWarn(t *testing.T) {
	for values, want := range map[string]string{
		`agent.nodeSelector={"a":"b"}`:                                              "A node without an agent enforces nothing",
		`agent.tolerations=[]`:                                                      "A node without an agent enforces nothing",
		`agent.affinity={"nodeAffinity":{}}`:                                        "A node without an agent enforces nothing",
		`agent.nodeSelector={"kubernetes.io/os":"linux"}`:                           "",
		`agent.nodeSelector={"kubernetes.io/os":null}`:                              "or widen it beyond Linux nodes",
		`agent.updateStrategy.type="OnDelete"`:                                      "an upgrade replaces no agent, and --wait doesn't wait for them",
		`admissionPolicies.enabled=false,agentAbsence.taint=false`:                  "a stolen token of an agent can report for every node",
		`flowControl.enabled=false`:                                                 "flowControl.enabled is false",
		`agent.podStartGuard="Off"`:                                                 "agent.podStartGuard is Off",
		`operator.replicas=0`:                                                       "operator.replicas is 0",
		`crds.enabled=false`:                                                        "crds.enabled is false",
		`monitoring.prometheusRule.enabled=true`:                                    "There are alerts but no PodMonitors",
		`monitoring.prometheusRule.enabled=true,monitoring.podMonitor.enabled=true`: "",
	} {
		text := notes(t, values)
		require.Equal(t, want != "", strings.Contains(text, "WARNING: "), "%s: %s", values, text)
		require.Contains(t, text, want, values)
	}
}
