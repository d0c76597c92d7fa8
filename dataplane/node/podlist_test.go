package node

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/watch"
)

// A static pod's uid is the kubelet's on both sides. The runtime's word on a pod that the
// API hasn't shown is none for the operator.
func TestDigestOf(t *testing.T) {
	mirror := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "api", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{watch.MirrorAnnotation: "kubelet"}}}
	mirror.Spec.NodeName = "node-1"
	require.Equal(t, v1alpha1.PodDigest("kubelet", mirror.Labels), digestOf(watch.ParsePod(mirror, "node-1")))
	require.Empty(t, digestOf(&policy.Pod{Labels: map[string]string{"a": "b"}}))
}

func TestSeenPods(t *testing.T) {
	pod := func(namespace, name string) *policy.Pod {
		return &policy.Pod{Namespace: namespace, Name: name, UID: types.UID(name)}
	}
	local := []*policy.Pod{pod("asked", "a"), pod("asked", "b"), pod("other", "c"), {Namespace: "asked", Name: "sooner"}}
	digests := map[types.NamespacedName]string{}
	for _, p := range local {
		digests[p.Key()] = digestOf(p)
	}
	seen := seenPods(local, digests, []*policy.Policy{{Namespace: "asked"}})
	require.Equal(t, map[types.UID]string{"a": v1alpha1.PodDigest("a", nil), "b": v1alpha1.PodDigest("b", nil), "c": ""}, seen)
}
