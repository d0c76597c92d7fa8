package dataplane

import (
	"maps"
	"slices"

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

// podList is which pods the report lists. The zero value lists none.
type podList struct {
	listed  map[types.UID]string
	digests []string // those of listed, in order
}

// follow takes the pods of this node whose rules the kernel holds, as seenPods returns
// them. That a pod is gone changes nothing: no status asks for it any more, and half of the
// writes would say nothing else.
func (l *podList) follow(seen map[types.UID]string) {
	changed := false
	for uid, digest := range seen {
		changed = changed || l.listed[uid] != digest
	}
	if !changed {
		return
	}
	l.listed = maps.Clone(seen)
	maps.DeleteFunc(l.listed, func(_ types.UID, digest string) bool { return digest == "" })
	l.digests = slices.Sorted(maps.Values(l.listed))
}

// report writes the list into a status.
func (l *podList) report(status *v1alpha1.NodeEnforcementStatus) {
	status.Pods = l.digests
	if len(status.Pods) > v1alpha1.MaxReportedPods {
		status.Pods, status.Truncated = status.Pods[:v1alpha1.MaxReportedPods], true
	}
}
