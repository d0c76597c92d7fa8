package roads

import (
	"encoding/json"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// The roads on which Moat comes, is updated, or is disturbed, and stays.

func helmInstall(r *run) { r.helm("install", presentChart) }
func helmUpgrade(r *run) { r.helm("upgrade", presentChart) }

// helmReplace is what Flux' helm-controller does with "force": objects are replaced
// instead of patched.
func helmReplace(r *run) {
	r.helm("upgrade", presentChart, "--force-replace", "--server-side=false", "--set", "logLevel=debug")
}

func helmRollback(r *run) {
	r.do("helm", "rollback", "moat", "1", "-n", systemNamespace, "--wait", "--timeout", helmLimit)
	r.awaitRollout()
}

// otherImage goes to another image and back, so that one of the two is a downgrade.
func otherImage(r *run) {
	for _, tag := range []string{otherTag, imageTag} {
		r.do("kubectl", "-n", systemNamespace, "set", "image", "daemonset/moat-agent", "agent="+image+":"+tag)
		r.do("kubectl", "-n", systemNamespace, "set", "image", "deployment/moat-operator", "operator="+image+":"+tag)
		r.awaitRollout()
	}
}

// applyTemplate is what pipelines do: the hooks are ordinary objects to them.
func applyTemplate(r *run) {
	r.input(strings.Join(r.template(), "\n---\n"), "kubectl", "apply", "--server-side", "--force-conflicts", "-n", systemNamespace, "-f", "-")
}

func applyAgain(r *run) {
	r.do("kubectl", "apply", "--server-side", "-k", "config/default")
	r.awaitRollout()
}

// agentsAsTheyAre is the DaemonSet as it is stored, for commands that create it again.
func (r *run) agentsAsTheyAre() string {
	r.t.Helper()
	stored := map[string]any{}
	require.NoError(r.t, json.Unmarshal([]byte(r.do("kubectl", "-n", systemNamespace, "get", "daemonset", "moat-agent", "-o", "json")), &stored))
	delete(stored, "status")
	metadata := stored["metadata"].(map[string]any)
	for _, of := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
		delete(metadata, of)
	}
	text, err := json.Marshal(stored)
	require.NoError(r.t, err)
	return string(text)
}

// replaceByForce deletes the DaemonSet and creates it again at once.
func replaceByForce(r *run) {
	r.input(r.agentsAsTheyAre(), "kubectl", "replace", "--force", "-f", "-")
	r.awaitRollout()
}

func orphanAgents(r *run) {
	stored := r.agentsAsTheyAre()
	r.do("kubectl", "-n", systemNamespace, "delete", "daemonset", "moat-agent", "--cascade=orphan")
	r.input(stored, "kubectl", "create", "-f", "-")
	r.awaitRollout()
	r.do("kubectl", "-n", systemNamespace, "rollout", "restart", "daemonset/moat-agent")
	r.awaitRollout()
}

func drain(r *run) {
	for _, node := range nodes {
		r.do("kubectl", "drain", node, "--ignore-daemonsets", "--pod-selector=app.kubernetes.io/name=moat", "--timeout=90s")
		r.do("kubectl", "uncordon", node)
	}
	r.awaitRollout()
}

// agentPod is the name of the agent's pod on a node.
func (r *run) agentPod(node string) string {
	r.t.Helper()
	return strings.TrimSpace(r.do("kubectl", "-n", systemNamespace, "get", "pods", "-l", "app.kubernetes.io/component=agent",
		"--field-selector", "spec.nodeName="+node, "-o", "jsonpath={.items[*].metadata.name}"))
}

func evict(r *run) {
	for _, node := range nodes {
		pod := r.agentPod(node)
		eviction := `{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "` + pod + `", "namespace": "` + systemNamespace + `"}}`
		r.input(eviction, "kubectl", "create", "--raw", "/api/v1/namespaces/"+systemNamespace+"/pods/"+pod+"/eviction", "-f", "-")
		r.await("another agent on "+node, 90*time.Second, func() bool { return r.agentPod(node) != pod && !strings.Contains(r.agentPod(node), " ") })
	}
	r.awaitRollout()
}

// refuseAPI makes the API server's port refuse every packet that comes from a node.
var refuseAPI = []string{"INPUT", "-i", "moat0", "-p", "tcp", "--dport", "6443", "-j", "REJECT", "--reject-with", "tcp-reset"}

// withoutAPIServer ends the agents while no node reaches the API server. kubelet starts
// their containers again, and the new agents can't read anything.
func withoutAPIServer(r *run) {
	r.onAPIServer("-I")
	back := func() { r.onAPIServer("-D") }
	defer func() { back() }()
	before := map[string]int{}
	for _, node := range nodes {
		before[node] = agentOn(node)
		require.NotZero(r.t, before[node], "no agent runs on %s", node)
		require.NoError(r.t, syscall.Kill(before[node], syscall.SIGTERM))
	}
	for _, node := range nodes {
		r.await("another agent on "+node, 90*time.Second, func() bool { now := agentOn(node); return now != 0 && now != before[node] })
	}
	r.pause(5 * time.Second)
	back()
	back = func() {}
	r.awaitRollout()
}

func (r *run) onAPIServer(verb string) {
	_, err := r.try(append([]string{"exec", "control-plane", "--", "iptables", verb}, refuseAPI...)...)
	r.check(err == nil, "iptables %s: %v", verb, err)
}

// secondInstall is refused, and the refusal says who was first.
func secondInstall(r *run) {
	out := r.refused(append([]string{"helm", "install", "second", presentChart, "-n", otherNamespace, "--create-namespace"}, withImage(imageTag)...)...)
	r.check(strings.Contains(out, "moat") && strings.Contains(out, systemNamespace), "the refusal doesn't name the release moat in %s: %s", systemNamespace, out)
}
