package selector_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/selector"
)

// A count is that of the pods which the selector matches. It leaves no trace: the index follows
// the wanted sets as before.
func TestCountIsThatOfTheMatchedPods(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			s := newSteps(randomBytes(seed, 600))
			for len(s.data) > 0 {
				s.step()
				for name, peers := range candidates {
					addresses, ports := s.truth.count(peers.Pods)
					gotAddresses, gotPorts := s.index.Count(&peers.Pods, math.MaxInt)
					require.Equal(t, addresses, gotAddresses, name)
					require.Equal(t, ports, gotPorts, name)
				}
				s.requireTruth(t)
			}
		})
	}
}

func (tr truth) count(peer policy.PodPeer) (addresses, ports int) {
	for _, pod := range tr.pods {
		if policytest.Selects(&peer, pod, tr.namespaces) {
			addresses += len(pod.Addrs)
			ports += len(pod.Addrs) * len(pod.Ports)
		}
	}
	return addresses, ports
}

// A count ends where it is larger than the caller needs to know.
func TestCountStops(t *testing.T) {
	ix := selector.NewIndex()
	for i := range 50 {
		ix.SetPod(newPod(fmt.Sprintf("a/%d", i), fmt.Sprintf("x=%d", i), fmt.Sprintf("10.0.0.%d", i+1)))
	}
	every := policy.EveryPod()
	addresses, _ := ix.Count(&every, 10)
	require.Equal(t, 11, addresses)
}
