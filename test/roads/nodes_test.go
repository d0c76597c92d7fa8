package roads

// The roads on which Moat leaves one node and stays on the others.

func narrowSelector(r *run) {
	for _, node := range nodes {
		if node != chosenNode {
			r.do("kubectl", "label", "node", node, agentLabel+"=enforce")
		}
	}
	r.leaving()
	r.helm("upgrade", presentChart, "--server-side=true", "--force-conflicts", "--set", "agent.nodeSelector."+agentLabel+"=enforce")
}

func loseLabel(r *run) {
	r.leaving()
	r.do("kubectl", "label", "node", chosenNode, agentLabel+"-")
}
