package removal

import (
	"fmt"
	"slices"
	"strings"
)

// maxNamed is how many nodes are named for each reason.
const maxNamed = 10

// wording is how a kind of finding is reported.
type wording struct {
	// one and many say what is wrong, after the number of nodes.
	one, many string
	// toDo says what a user can do. NODE stands for a node's name.
	toDo string
}

var wordings = map[kind]wording{
	nodeNotReady: {
		"node is NotReady: nothing ends the agent there",
		"nodes are NotReady: nothing ends the agents there",
		"repair the node; or, where its machine is gone, delete its Node: kubectl delete node NODE",
	},
	agentFails: {
		"node has rules, and its agent doesn't run",
		"nodes have rules, and their agents don't run",
		"repair the agent, whose log and pod say more; or clean the node by hand",
	},
	agentStarts: {
		"node has rules, and its agent is only starting",
		"nodes have rules, and their agents are only starting",
		"wait: kubectl rollout status daemonset/" + DaemonSetName,
	},
	agentNotReady: {
		"node has an agent that isn't Ready, which may fail to clean, too",
		"nodes have agents that aren't Ready, which may fail to clean, too",
		"see why in the agent's log and in kubectl describe nodeenforcement NODE",
	},
	agentMissing: {
		"node has a NodeEnforcement, so that rules may stand there, but no agent",
		"nodes have a NodeEnforcement, so that rules may stand there, but no agent",
		"let the DaemonSet " + DaemonSetName + " place an agent there (agent.nodeSelector, agent.affinity, agent.tolerations); or clean the node by hand and run kubectl delete nodeenforcement NODE",
	},
	agentOrphaned: {
		"node has an agent that no DaemonSet owns: removal doesn't end it",
		"nodes have agents that no DaemonSet owns: removal doesn't end them",
		"apply the release again, so that the DaemonSet adopts the pod; or delete the pod after the removal",
	},
	agentHasNoTime: {
		"node has an agent that doesn't clean when it ends: it is older than 0.3.0, or terminationGracePeriodSeconds was lowered",
		"nodes have agents that don't clean when they end: they are older than 0.3.0, or terminationGracePeriodSeconds was lowered",
		"finish the upgrade first: kubectl rollout status daemonset/" + DaemonSetName,
	},
	taintStands: {
		"node keeps new pods away by a taint that only the operator takes off, and no operator is Ready",
		"nodes keep new pods away by a taint that only the operator takes off, and no operator is Ready",
		"repair the operator; or take the taint off: kubectl taint node NODE " + AbsentTaint + "-",
	},
}

const whatElse = `To remove Moat all the same: helm uninstall --no-hooks (for GitOps: the value uninstall.check: false). Moat's rules then
stay on these nodes until they restart. Where the pod-start guard stands, new pods have no network until then.
docs/operations.md, "Cleaning nodes by hand", says how to clean them.
`

// describe writes the findings as text of several lines, with what to do.
func describe(found []finding) string {
	var text strings.Builder
	text.WriteString("Nothing was removed, since removal wouldn't reach every node.\n\n")
	for rest := found; len(rest) > 0; {
		of := slices.IndexFunc(rest, func(f finding) bool { return f.kind != rest[0].kind })
		if of < 0 {
			of = len(rest)
		}
		describeKind(&text, rest[:of])
		rest = rest[of:]
	}
	text.WriteString(whatElse)
	return text.String()
}

// describeKind writes findings of one kind.
func describeKind(text *strings.Builder, found []finding) {
	_, _ = fmt.Fprintf(text, "%s:\n", headOf(found))
	for i, f := range found {
		if i == maxNamed {
			_, _ = fmt.Fprintf(text, "  and %d more\n", len(found)-maxNamed)
			break
		}
		line := "  " + f.node
		if f.detail != "" {
			line += ": " + f.detail
		}
		text.WriteString(line + "\n")
	}
	_, _ = fmt.Fprintf(text, "To do: %s\n\n", wordings[found[0].kind].toDo)
}

func headOf(found []finding) string {
	words := wordings[found[0].kind]
	if len(found) == 1 {
		return "1 " + words.one
	}
	return fmt.Sprintf("%d %s", len(found), words.many)
}

// countsOf says in one line how many nodes there are of each kind.
func countsOf(found []finding) string {
	byKind := map[kind][]finding{}
	var order []kind
	for _, f := range found {
		if byKind[f.kind] == nil {
			order = append(order, f.kind)
		}
		byKind[f.kind] = append(byKind[f.kind], f)
	}
	var parts []string
	for _, k := range order {
		parts = append(parts, headOf(byKind[k]))
	}
	return strings.Join(parts, "; ")
}

// summaryOf says why nothing keeps Moat from being removed.
func summaryOf(seen cluster) string {
	count := 0
	for name := range seen.nodes {
		if seen.reports[name] || anyRuns(seen.agents[name]) {
			count++
		}
	}
	switch {
	case count > 0:
		return fmt.Sprintf("removal reaches each of the %d nodes where Moat may have rules: their agents clean them when they end. "+
			"From then on no NetworkPolicy is enforced.\n", count)
	case seen.daemonSet:
		return "no agent has come to work on any node: there is nothing to clean\n"
	}
	return "there is no DaemonSet " + DaemonSetName + " and no node with rules of Moat: there is nothing to clean\n"
}
