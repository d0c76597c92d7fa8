package node

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/policy"
)

// digestOf returns what a report lists of a pod of this node: nothing of one that the API
// hasn't shown yet, since the runtime's word on its labels isn't the operator's.
func digestOf(pod *policy.Pod) string {
	if pod.UID == "" {
		return ""
	}
	return v1alpha1.PodDigest(pod.UID, pod.Labels)
}

// seenPods returns the digest of each pod of this node, by the pod's uid. It is empty for
// pods of namespaces without a policy that selects one of them: no status asks for these.
func seenPods(local []*policy.Pod, digests map[types.NamespacedName]string, selecting []*policy.Policy) map[types.UID]string {
	asked := map[string]bool{}
	for _, p := range selecting {
		asked[p.Namespace] = true
	}
	seen := make(map[types.UID]string, len(local))
	for _, pod := range local {
		if pod.UID == "" {
			continue
		}
		seen[pod.UID] = ""
		if asked[pod.Namespace] {
			seen[pod.UID] = digests[pod.Key()]
		}
	}
	return seen
}
