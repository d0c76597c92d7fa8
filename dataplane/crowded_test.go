package dataplane

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func TestTheGreediestGiveWay(t *testing.T) {
	of := func(namespace, uid string, sets int) holding {
		return holding{policyID{types.UID(uid), 1}, namespace, sets}
	}
	// One large policy, and a namespace with more in small ones.
	holdings := []holding{of("large", "l1", 50), of("many", "m1", 30), of("many", "m2", 31), of("many", "m3", 3), of("few", "f1", 2)}
	for need, want := range map[int][]string{
		1: {"m2"}, 31: {"m2"}, 32: {"m2", "l1"}, 81: {"m2", "l1"}, 82: {"m2", "l1", "m1"}, 1000: {"m2", "l1", "m1", "m3", "f1"},
	} {
		var uids []string
		for _, h := range greediest(holdings, need) {
			uids = append(uids, string(h.uid))
		}
		require.Equal(t, want, uids, need)
	}
	require.Empty(t, greediest(nil, 1))
}
