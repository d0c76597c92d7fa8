package node

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Where pods of several nodes show one address, the ranges of these nodes decide which of
// the pods is the peer: see policy.OwnersOf. An agent watches no Node but its own, since
// the kubelets of a large cluster write theirs all the time. So it asks for the Nodes in
// question, when there is a question.
const (
	// rangesSpread is how long an agent waits at most before it asks: all agents see such
	// an address at once.
	rangesSpread = 500 * time.Millisecond

	// rangesAgain is how often it asks again, also after an error. A Node may be made again
	// with other ranges.
	rangesAgain = 5 * time.Minute
	rangesRetry = 10 * time.Second

	// rangesPerSecond and rangesBurst bound what one agent asks, however many addresses are
	// in question.
	rangesPerSecond = 1
	rangesBurst     = 10
)

// SetRanges takes the ranges of the pods of a node.
func (m *Model) SetRanges(node *corev1.Node) {
	m.change(func() {
		for _, pod := range m.addresses.SetRanges(node.Name, podCIDRsOf(node)) {
			m.place(pod)
		}
	})
}

// contestedNodes returns the nodes whose ranges are asked for, and forgets the ranges of
// others. Those of this node are always known.
func (m *Model) contestedNodes() map[string]struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	contested := m.addresses.Contested()
	delete(contested, "") // a pod that isn't scheduled
	for node := range m.addresses.Ranges() {
		if _, is := contested[node]; !is && node != m.node {
			m.addresses.ForgetRanges(node)
		}
	}
	delete(contested, m.node)
	return contested
}

// contest wakes who asks for ranges, where more than one pod is affected by a change.
func (m *Model) contest(affected int) {
	if affected < 2 {
		return
	}
	select {
	case m.contested <- struct{}{}:
	default:
	}
}
