package v1alpha1

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

// Agents and operators of several versions compare digests, so that they never change.
func TestPodDigest(t *testing.T) {
	require.Equal(t, "0ugkm3hg23dn0t9q", PodDigest("a-uid", map[string]string{"app": "db", "tier": "back"}))
	seen := map[string]bool{}
	for _, labels := range []map[string]string{nil, {"a": ""}, {"a": "b"}, {"a": "bc"}, {"ab": "c"}, {"a": "b", "c": "d"}, {"a": "d", "c": "b"}} {
		for _, uid := range []types.UID{"1", "2"} {
			digest := PodDigest(uid, labels)
			require.Len(t, digest, 16)
			require.False(t, seen[digest], "%s %v", uid, labels)
			seen[digest] = true
		}
	}
	require.Equal(t, PodDigest("1", nil), PodDigest("1", map[string]string{}))
}

func BenchmarkPodDigest(b *testing.B) {
	labels := map[string]string{
		"app.kubernetes.io/name": "something", "app.kubernetes.io/instance": "something-else", "app.kubernetes.io/component": "backend",
		"pod-template-hash": "7f8d9c6b5d", "team": "payments", "version": "v1.2.3",
	}
	for b.Loop() {
		PodDigest("0b3c6b0e-6f0a-4d5e-9d0f-7c1f4a1c2d3e", labels)
	}
}
