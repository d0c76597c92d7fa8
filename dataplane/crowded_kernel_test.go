package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// fill gives the kernel room for so many sets more.
func (s *scene) fill(room int) {
	s.t.Helper()
	most := s.countSets() + room
	s.enforcer.room = most
	s.enforcer.sets.Creating = func() error {
		if s.countSets() >= most {
			return ipset.ErrFull
		}
		return nil
	}
}

func (s *scene) countSets() int {
	sizes, err := s.enforcer.sets.Sizes()
	require.NoError(s.t, err)
	return len(sizes)
}

// manySets is a policy of namespace hostile with so many pod selectors.
func manySets(name string, selectors int) string {
	text := "metadata: {name: " + name + ", namespace: hostile}\nspec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: ["
	for i := range selectors {
		text += fmt.Sprintf("{podSelector: {matchLabels: {%s: %q}}}, ", name, fmt.Sprint(i))
	}
	return text + "{ipBlock: {cidr: 10.244.2.0/24}}]}]}"
}

// A policy fills the kernel's room for sets, and then an innocent one of another namespace
// finds none: the greedy one closes, whichever came last and whenever it is tried again.
func TestWhereTheKernelHasNoRoomForSetsTheGreediestClose(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.namespace("hostile", nil)
		s.pod("hostile", "attacker", nil, "10.244.1.20", "fd00:10:244:1::20")
		s.label("test-np", map[string]string{"role": "db"})
		s.sync()
		s.fill(90) // two for each selector, one of each family
		s.apply(manySets("small", 5))
		s.apply(manySets("greedy", 35))
		s.sync()
		require.Empty(t, s.quarantined())
		s.requireTCP(true, "busybox", "attacker", 80)

		s.apply(walkThrough)
		s.apply(admitsFrontends)
		for i := range 4 {
			s.apply(fmt.Sprintf("metadata: {name: more-%d}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {more: %q}}}]}]}", i, fmt.Sprint(i)))
		}
		s.sync()
		greedy := policyID{"hostile/greedy", 1}
		require.Equal(t, []policyID{greedy}, s.quarantined())
		require.ErrorContains(t, s.enforcer.view.refused["hostile/greedy"], "the policies of namespace hostile take the most on this node (84, this one 72)")
		s.requireWalkThrough()
		s.requireTCP(false, "busybox", "attacker", 80)

		// Tried again, alone and with an innocent one beside it, it is found again.
		for i := range 2 {
			if i == 1 {
				s.apply("metadata: {name: another}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {another: x}}}]}]}")
			}
			wait := s.enforcer.quarantine[greedy].wait
			s.enforcer.quarantine[greedy].retry = time.Now()
			s.sync()
			require.Equal(t, []policyID{greedy}, s.quarantined())
			require.Greater(t, s.enforcer.quarantine[greedy].wait, wait)
			s.requireWalkThrough()
		}

		s.enforcer.sets.Creating = nil
		s.enforcer.quarantine[greedy].retry = time.Now()
		s.sync()
		require.Empty(t, s.quarantined())
		s.requireTCP(true, "busybox", "attacker", 80)
		s.requireWalkThrough()
	})
}

// Where other programs' sets fill the kernel, no policy that is in force closes for a new one.
func TestSetsOfOtherProgramsCloseNoPolicyInForce(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.namespace("hostile", nil)
	s.pod("hostile", "attacker", nil, "10.244.1.20", "fd00:10:244:1::20")
	s.apply(manySets("many", 5))
	s.sync()
	s.fill(0)
	s.enforcer.room = mostSets
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(admitsFrontends)
	s.sync()
	require.Equal(t, []policyID{{"default/admits", 1}}, s.quarantined())
	s.requirePing(false, "busybox", "test-np")
	s.requireTCP(true, "busybox", "attacker", 80)
}
