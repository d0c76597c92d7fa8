package roads

import (
	"path/filepath"
	"strings"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// installation is what stands when a road begins.
type installation struct{ make func(s *scene) }

// What may stand.
var (
	absent          = &installation{func(*scene) {}}
	helmRelease     = &installation{func(s *scene) { s.helm("install", presentChart) }}
	previousRelease = &installation{func(s *scene) { s.helm("install", previousChart) }}
	upgradedRelease = &installation{installAndUpgrade}
	selectedNodes   = &installation{installOnLabelledNodes}
	limitedRelease  = &installation{installBehindQuota}
	kustomized      = &installation{applyKustomizations}
	rendered        = &installation{applyRendered}
)

// provide makes the cluster one on which an installation stands, and nothing else of
// Moat. A healthy release that the road before left is brought back to its values.
func (s *scene) provide(wanted *installation) {
	s.t.Helper()
	standing := *s.standing
	*s.standing = nil
	if standing == wanted && wanted == helmRelease {
		s.helm("upgrade", presentChart, "--server-side=true", "--force-conflicts")
		s.awaitRollout()
		return
	}
	s.removeMoat()
	wanted.make(s)
}

// The charts of this checkout and of the release before it.
var (
	presentChart  = filepath.Join("charts", "moat")
	previousChart = filepath.Join("hack", "demo", "previous", "moat-0.2.0.tgz")
)

// helmLimit is how long Helm may wait for agents and operator.
const helmLimit = "180s"

// withImage are the values that make Helm use an image that is on the nodes.
func withImage(tag string) []string {
	return []string{"--set", "image.tag=" + tag, "--set", "image.pullPolicy=Never"}
}

// helm runs "helm VERB moat CHART" with this checkout's image and more arguments.
func (s *scene) helm(verb, chart string, more ...string) {
	s.t.Helper()
	args := append([]string{"helm", verb, "moat", chart, "-n", systemNamespace, "--wait", "--timeout", helmLimit}, withImage(imageTag)...)
	if verb == "install" {
		args = append(args, "--create-namespace")
	}
	s.do(append(args, more...)...)
}

func installAndUpgrade(s *scene) {
	s.helm("install", previousChart)
	s.helm("upgrade", presentChart)
}

// installOnLabelledNodes makes a release whose agents are on labelled nodes, which are
// all.
func installOnLabelledNodes(s *scene) {
	s.do("kubectl", "label", "node", "--all", "--overwrite", agentLabel+"=enforce")
	s.helm("install", presentChart, "--set", "agent.nodeSelector."+agentLabel+"=enforce")
}

// agentLabel is a label that an administrator gives to nodes.
const agentLabel = "moat"

// installBehindQuota makes a release in a namespace that a quota keeps the system's
// priority classes out of, as some providers have it.
func installBehindQuota(s *scene) {
	s.do("kubectl", "create", "namespace", systemNamespace)
	s.do("kubectl", "apply", "-f", manifest("quota.yaml"))
	s.helm("install", presentChart, "--set", "operator.priorityClassName=", "--set", "agent.priorityClassName=")
}

func applyKustomizations(s *scene) {
	s.do("kubectl", "apply", "--server-side", "-k", "config/crd")
	s.do("kubectl", "apply", "--server-side", "-k", "config/default")
	s.awaitRollout()
}

// applyRendered does what a controller like Argo CD does with the chart: it leaves the
// hooks out.
func applyRendered(s *scene) {
	s.do("kubectl", "create", "namespace", systemNamespace)
	s.input(s.rendered(func(object) bool { return true }), "kubectl", "apply", "--server-side", "-f", "-")
	s.awaitRollout()
}

func (s *scene) awaitRollout() {
	s.t.Helper()
	s.do("kubectl", "-n", systemNamespace, "rollout", "status", "deployment/moat-operator", "--timeout="+helmLimit)
	s.do("kubectl", "-n", systemNamespace, "rollout", "status", "daemonset/moat-agent", "--timeout="+helmLimit)
}

// object is what decides about an object of the chart.
type object struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

func (o object) isHook() bool { return o.Metadata.Annotations["helm.sh/hook"] != "" }
func (o object) isKept() bool { return o.Metadata.Annotations["helm.sh/resource-policy"] == "keep" }

// template renders the chart as a pipeline does.
func (s *scene) template() []string {
	s.t.Helper()
	out := s.do(append([]string{"helm", "template", "moat", presentChart, "-n", systemNamespace}, withImage(imageTag)...)...)
	return strings.Split(out, "\n---\n")
}

// rendered is the objects of the chart that are no hooks and that a function wants, in
// Helm's order.
func (s *scene) rendered(wanted func(object) bool) string {
	s.t.Helper()
	var chosen []string
	for _, document := range s.template() {
		var o object
		require.NoError(s.t, yaml.Unmarshal([]byte(document), &o))
		if !o.isHook() && wanted(o) {
			chosen = append(chosen, document)
		}
	}
	return strings.Join(chosen, "\n---\n")
}

// clusterKinds are those of Moat's objects that are in no namespace.
const clusterKinds = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,flowschemas,prioritylevelconfigurations"

// removeMoat makes the cluster one that never had Moat, whatever the road before left.
// Objects that the suite didn't make stay.
func (s *scene) removeMoat() {
	s.t.Helper()
	_, _ = s.try("kubectl", "delete", "-f", manifest("foreign-nodes.yaml"), "--ignore-not-found")
	for _, namespace := range []string{systemNamespace, otherNamespace} {
		s.do("kubectl", "delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s")
	}
	s.do("kubectl", "delete", clusterKinds, "-l", "app.kubernetes.io/name=moat", "--ignore-not-found")
	s.do("kubectl", "delete", "crd", "--ignore-not-found", "--timeout=60s", "appisolations.isolation.moat.dev",
		"isolationconfigs.isolation.moat.dev", "nodeenforcements.isolation.moat.dev", "policyenforcements.isolation.moat.dev")
	for _, node := range nodes {
		s.await("the end of the agent on "+node, settlesWithin, func() bool { return agentOn(node) == 0 })
		s.do("exec", node, "--", "bin/moat", "agent", "cleanup")
	}
	s.repairNodes()
}

// absentTaint is what the operator gives to a node whose agent stays away.
const absentTaint = "isolation.moat.dev/agent-absent"

// repairNodes takes away what roads do to nodes.
func (s *scene) repairNodes() {
	s.t.Helper()
	_, _ = s.try("kubectl", "taint", "node", "--all", absentTaint+"-") // fails where there is none
	s.do("kubectl", "label", "node", "--all", agentLabel+"-")
	s.do(append([]string{"kubectl", "uncordon"}, nodes...)...)
}
