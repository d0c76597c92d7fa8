package survey

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// Indexes of the manager's cache: see AddIndexes.
const (
	// PodNodeIndex finds the pods of one node.
	PodNodeIndex = "spec.nodeName"
	// AppPolicyIndex finds the AppIsolation whose policy has a uid.
	AppPolicyIndex = "status.policy.uid"
	// PolicyUIDIndex finds the policy of a uid.
	PolicyUIDIndex = "metadata.uid"
)

// CacheByObject returns how the manager's cache must hold the objects that the controllers
// read by the thousand. Of a pod it keeps only what they use. Neither pods nor reports are
// copied at each read: nothing may write to them.
func CacheByObject() map[client.Object]cache.ByObject {
	shared := true
	return map[client.Object]cache.ByObject{
		&corev1.Pod{}:               {Transform: trimPod, UnsafeDisableDeepCopy: &shared},
		&v1alpha1.NodeEnforcement{}: {UnsafeDisableDeepCopy: &shared},
	}
}

// trimPod keeps of a pod what decides whether it is selected, where it runs and
// whether it is a ready agent: about a twentieth of its size. Its digest is made here, once
// for each event, and kept in a field that nothing else reads: see DigestOf.
func trimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	trimmed := &corev1.Pod{
		TypeMeta: pod.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       pod.Namespace,
			Name:            pod.Name,
			UID:             pod.UID,
			ResourceVersion: pod.ResourceVersion,
			Labels:          pod.Labels,
			GenerateName:    v1alpha1.PodDigest(uidOf(pod), pod.Labels),
		},
		Spec:   corev1.PodSpec{NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork},
		Status: corev1.PodStatus{Phase: pod.Status.Phase},
	}
	if uid, static := pod.Annotations[corev1.MirrorPodAnnotationKey]; static { // informers may trim a pod twice
		trimmed.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: uid}
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			trimmed.Status.Conditions = []corev1.PodCondition{{Type: condition.Type, Status: condition.Status}}
		}
	}
	return trimmed, nil
}

// AddIndexes adds the indexes to the manager's cache. Each may be added once.
func AddIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &corev1.Pod{}, PodNodeIndex, func(object client.Object) []string {
		return []string{object.(*corev1.Pod).Spec.NodeName}
	})
	if err != nil {
		return fmt.Errorf("indexing pods by node: %w", err)
	}
	err = indexer.IndexField(ctx, &v1alpha1.AppIsolation{}, AppPolicyIndex, func(object client.Object) []string {
		policy := object.(*v1alpha1.AppIsolation).Status.Policy
		if policy == nil {
			return nil
		}
		return []string{string(policy.UID)}
	})
	if err != nil {
		return fmt.Errorf("indexing AppIsolations by policy: %w", err)
	}
	err = indexer.IndexField(ctx, &networkingv1.NetworkPolicy{}, PolicyUIDIndex, func(object client.Object) []string {
		return []string{string(object.GetUID())}
	})
	if err != nil {
		return fmt.Errorf("indexing policies by uid: %w", err)
	}
	return nil
}
