package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/test/bench/results"
)

func TestOptionsComeFromTheEnvironment(t *testing.T) {
	o, err := newOptions()
	require.NoError(t, err)
	require.Equal(t, []string{small, results.Large}, o.scenarios)
	require.Equal(t, sizes[results.Large], o.sizes[1])

	t.Setenv("SCENARIO", "100k")
	t.Setenv("PODS", "7")
	o, err = newOptions()
	require.NoError(t, err)
	require.Equal(t, []string{custom}, o.scenarios, "it isn't the scenario of that name, and has none of its targets")
	require.Equal(t, size{namespaces: 1000, pods: 7, policies: 20, local: 100}, o.sizes[0])
}

// The hostile scenario alone measures nothing of the others.
func TestTheHostileScenarioIsAsked(t *testing.T) {
	t.Setenv("SCENARIO", "hostile")
	o, err := newOptions()
	require.NoError(t, err)
	require.Equal(t, 1000, o.hostile)
	require.Empty(t, o.sizes)
	require.False(t, o.has(partTraffic))

	t.Setenv("SCENARIO", "small,hostile")
	t.Setenv("HOSTILE", "20")
	o, err = newOptions()
	require.NoError(t, err)
	require.Equal(t, 20, o.hostile)
	require.Equal(t, []string{small}, o.scenarios)
	require.True(t, o.has(partTraffic))
}

func TestOptionsThatCantBeAreRefused(t *testing.T) {
	for name, value := range map[string]string{
		"SCENARIO": "huge", "PODS": "many", "LOCAL": "200", "SAMPLES": "0", "NAMESPACES": "1", "BACKEND": "ebpf",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := newOptions()
			require.Error(t, err)
		})
	}
}

// The local pods are spread over the namespaces, and the first is the one that the
// delays are measured at.
func TestLocalPodsAreSpread(t *testing.T) {
	for name, s := range sizes {
		require.NoError(t, s.validate(), name)
		local := s.localPods()
		require.Len(t, local, s.local, name)
		require.Contains(t, local, 0, name)
		namespaces := map[int]int{}
		for number := range local {
			namespaces[number/s.pods]++
		}
		require.Len(t, namespaces, min(s.local, s.namespaces), name)
	}
}

// Every pod has an address of its own, and every policy a name.
func TestAClusterHasNothingTwice(t *testing.T) {
	s := sizes[small]
	addrs, policies := map[string]bool{}, map[types.NamespacedName]bool{}
	for i := range s.namespaces {
		for _, pod := range s.podsOf(i) {
			addrs[pod.Status.PodIP] = true
		}
		for _, policy := range s.policiesOf(i) {
			policies[types.NamespacedName{Namespace: policy.Namespace, Name: policy.Name}] = true
		}
	}
	require.Len(t, addrs, s.namespaces*s.pods)
	require.Len(t, policies, s.namespaces*s.policies)
}
