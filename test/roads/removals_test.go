package roads

import (
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// The roads out.

func helmUninstall(r *run) {
	r.leaving()
	r.do("helm", "uninstall", "moat", "-n", systemNamespace, "--timeout", helmLimit)
}

func helmUninstallWithoutHooks(r *run) {
	r.leaving()
	r.do("helm", "uninstall", "moat", "-n", systemNamespace, "--no-hooks")
}

func deleteNamespace(r *run) {
	r.leaving()
	r.do("kubectl", "delete", "namespace", systemNamespace, "--timeout=120s")
}

// deleteKustomized must not take what users have written.
func deleteKustomized(r *run) {
	r.do("kubectl", "apply", "-f", manifest("appisolation.yaml"))
	r.await("the policy of the AppIsolation", 10*time.Second, func() bool { return r.policyOfUser() })
	r.leaving()
	r.do("kubectl", "delete", "-k", "config/default", "--timeout=120s")
	kept, err := r.try("kubectl", "-n", roadsNamespace, "get", "appisolation", "kept", "-o", "name")
	r.check(err == nil, "the user's AppIsolation is gone: %s", kept)
	r.check(r.policyOfUser(), "the AppIsolation's policy is gone")
}

func (r *run) policyOfUser() bool {
	_, err := r.try("kubectl", "-n", roadsNamespace, "get", "networkpolicy", "appiso-kept", "-o", "name")
	return err == nil
}

// deleteApplication is what Argo CD does when an application is deleted with its
// resources: it takes all objects at once, each in the foreground, whose order is left
// to chance. Hooks of Helm that it doesn't know, and pre-delete is one, it never makes.
// What "helm.sh/resource-policy: keep" protects stays, and so does the namespace.
func deleteApplication(r *run) {
	objects := r.rendered(func(o object) bool { return !o.isKept() })
	r.leaving()
	r.input(objects, "kubectl", "delete", "--cascade=foreground", "--wait=false", "-f", "-")
}

func failedInstall(r *run) {
	r.refused(append([]string{"helm", "install", "moat", presentChart, "-n", systemNamespace, "--create-namespace", "--wait", "--timeout", "20s"}, withImage(missingTag)...)...)
	r.do("helm", "uninstall", "moat", "-n", systemNamespace, "--timeout", helmLimit)
}

// moveHouse installs Moat where it wasn't before. The CRDs stayed and carry the name of
// the first release, so the second has to take them over.
func moveHouse(r *run) {
	r.helm("install", presentChart)
	r.do("helm", "uninstall", "moat", "-n", systemNamespace, "--timeout", helmLimit)
	r.do(append([]string{"helm", "install", "second", presentChart, "-n", otherNamespace, "--create-namespace", "--take-ownership", "--wait", "--timeout", helmLimit}, withImage(imageTag)...)...)
}

// foreignNodes never get an agent, and neither an install nor a removal waits for one.
func foreignNodes(r *run) {
	r.do("kubectl", "apply", "-f", manifest("foreign-nodes.yaml"))
	r.helm("install", presentChart)
	where := strings.Fields(r.do("kubectl", "-n", systemNamespace, "get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"))
	r.check(len(foreign(where)) == 0, "Moat has pods on %s", strings.Join(foreign(where), " "))
	r.do("helm", "uninstall", "moat", "-n", systemNamespace, "--timeout", helmLimit)
}

func uninstallBehindPolicy(r *run) {
	r.do("kubectl", "apply", "-f", manifest("default-deny.yaml"))
	r.pause(2 * time.Second) // the policy is in force then
	helmUninstall(r)
}

// uninstallWithDeadNode is refused, with the node's name and before anything is removed.
// Once the node is back, removal works.
func uninstallWithDeadNode(r *run) {
	kubelet, err := daemonOn(chosenNode, "kubelet")
	require.NoError(r.t, err)
	require.NoError(r.t, syscall.Kill(kubelet, syscall.SIGSTOP))
	defer func() { _ = syscall.Kill(kubelet, syscall.SIGCONT) }()
	r.do("kubectl", "wait", "--for=condition=Ready=Unknown", "node/"+chosenNode, "--timeout=120s")
	r.awaitWord("Unknown")
	r.uninstallIsRefused()
	require.NoError(r.t, syscall.Kill(kubelet, syscall.SIGCONT))
	r.do("kubectl", "wait", "--for=condition=Ready", "node/"+chosenNode, "--timeout=60s")
	r.awaitRollout()
	r.awaitWord("Ready")
	helmUninstall(r)
}

func uninstallWithoutAgent(r *run) {
	r.loseAgent(chosenNode)
	r.uninstallIsRefused()
	r.findAgent(chosenNode)
	r.awaitWord("Ready")
	helmUninstall(r)
}

// awaitWord waits until the operator says this of the chosen node's agent: removal asks
// what the operator says, which follows the pods a moment later.
func (r *run) awaitWord(state string) {
	r.t.Helper()
	r.do("kubectl", "wait", "--for=jsonpath={.status.agent.state}="+state, "nodeenforcement/"+chosenNode, "--timeout=10s")
}

// uninstallIsRefused says why, and everything stands as before.
func (r *run) uninstallIsRefused() {
	r.t.Helper()
	out := r.refused("helm", "uninstall", "moat", "-n", systemNamespace, "--timeout", helmLimit)
	r.check(strings.Contains(out, chosenNode), "the refusal doesn't name %s: %s", chosenNode, out)
	for _, kept := range []string{"daemonset/moat-agent", "deployment/moat-operator", "serviceaccount/moat-agent"} {
		_, err := r.try("kubectl", "-n", systemNamespace, "get", kept, "-o", "name")
		r.check(err == nil, "%s was removed before the refusal", kept)
	}
}
