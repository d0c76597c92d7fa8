package roads

import (
	"strings"
	"time"
)

// taintWithin is how long after its agent went the operator taints a node: 60 s, and
// what noticing takes.
const taintWithin = 85 * time.Second

// loseAgent makes the agent of one node stay away: its next pod's image can't be had.
// The other agents stay as they are.
func (r *run) loseAgent(node string) {
	r.t.Helper()
	r.do("kubectl", "-n", systemNamespace, "patch", "daemonset", "moat-agent", "--type=merge", "-p", `{"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}`)
	r.do("kubectl", "-n", systemNamespace, "set", "image", "daemonset/moat-agent", "agent="+image+":"+missingTag)
	r.do("kubectl", "-n", systemNamespace, "delete", "pod", r.agentPod(node))
	r.await("an agent that can't start on "+node, settlesWithin, func() bool {
		return strings.Contains(r.do("kubectl", "-n", systemNamespace, "get", "pod", "-o", "wide"), "ErrImageNeverPull")
	})
}

// findAgent brings the agent back that loseAgent took.
func (r *run) findAgent(node string) {
	r.t.Helper()
	r.do("kubectl", "-n", systemNamespace, "set", "image", "daemonset/moat-agent", "agent="+image+":"+imageTag)
	r.do("kubectl", "-n", systemNamespace, "delete", "pod", r.agentPod(node))
	r.await("the agent on "+node, settlesWithin, func() bool {
		return strings.Contains(r.do("kubectl", "-n", systemNamespace, "get", "pods", "-l", "app.kubernetes.io/component=agent", "--field-selector", "spec.nodeName="+node), "1/1")
	})
}

// tainted lists the nodes that take no new pods since they have no agent.
func (r *run) tainted() string {
	r.t.Helper()
	var found []string
	for line := range strings.Lines(r.do("kubectl", "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.taints[*].key}{"\n"}{end}`)) {
		if words := strings.Fields(line); len(words) > 1 && strings.Contains(line, absentTaint) {
			found = append(found, words[0])
		}
	}
	return strings.Join(found, " ")
}

// agentAway looks at a node without agent: it is tainted, the scheduler places nothing
// there, and when the agent is back everything is as before.
func agentAway(r *run) {
	r.loseAgent(chosenNode)
	r.await("the taint of "+chosenNode, taintWithin, func() bool { return r.tainted() == chosenNode })
	r.input(podManifest("waits", chosenNode, "kind: probe")+"---\n"+podManifest("placed", "", "kind: probe"), "kubectl", "apply", "-f", "-")
	r.do("kubectl", "-n", roadsNamespace, "wait", "--for=condition=Ready", "pod/placed", "--timeout=30s")
	where := strings.TrimSpace(r.do("kubectl", "-n", roadsNamespace, "get", "pod", "placed", "-o", "jsonpath={.spec.nodeName}"))
	r.check(where != chosenNode, "a new pod was placed on %s", where)
	r.check(r.hasNetwork("placed", r.podAddresses("kind=probe")["placed"]), "the new pod on %s has no network", where)
	phase := strings.TrimSpace(r.do("kubectl", "-n", roadsNamespace, "get", "pod", "waits", "-o", "jsonpath={.status.phase}"))
	r.check(phase == "Pending", "a pod that asks for %s is %s", chosenNode, phase)
	r.findAgent(chosenNode)
	r.await("the end of the taint", 30*time.Second, func() bool { return r.tainted() == "" })
	r.do("kubectl", "-n", roadsNamespace, "wait", "--for=condition=Ready", "pod/waits", "--timeout=30s")
}

// operatorFirst deletes the only program that may take a taint away, before Moat is
// removed. Nothing says then that the agent is back, so the check before a removal would
// refuse.
func operatorFirst(r *run) {
	r.loseAgent(chosenNode)
	r.await("the taint of "+chosenNode, taintWithin, func() bool { return r.tainted() == chosenNode })
	r.do("kubectl", "-n", systemNamespace, "delete", "deployment", "moat-operator")
	r.await("the end of the taint", 30*time.Second, func() bool { return r.tainted() == "" })
	r.findAgent(chosenNode)
	r.leaving()
	r.do("helm", "uninstall", "moat", "-n", systemNamespace, "--no-hooks")
}

// deleteNamespaceWithoutAgent can't clean the node whose agent is away; but the taint
// goes, which only the operator takes away.
func deleteNamespaceWithoutAgent(r *run) {
	r.loseAgent(chosenNode)
	r.await("the taint of "+chosenNode, taintWithin, func() bool { return r.tainted() == chosenNode })
	r.leaving()
	r.do("kubectl", "delete", "namespace", systemNamespace, "--timeout=120s")
	r.check(r.tainted() == "", "tainted still: %s", r.tainted())
}
