package survey

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

func TestTrimPodKeepsWhatIsUsed(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "n", Name: "p", UID: "u", ResourceVersion: "7",
			Labels:        map[string]string{"a": "b"},
			Annotations:   map[string]string{"large": "text"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}},
		},
		Spec: corev1.PodSpec{NodeName: "node", HostNetwork: true, Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			PodIP:      "10.0.0.1",
			Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionTrue, Message: "m"}},
		},
	}
	trimmed, err := trimPod(pod)
	require.NoError(t, err)
	require.Equal(t, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "n", Name: "p", UID: "u", ResourceVersion: "7", Labels: map[string]string{"a": "b"},
			GenerateName: v1alpha1.PodDigest("u", pod.Labels),
		},
		Spec: corev1.PodSpec{NodeName: "node", HostNetwork: true},
		Status: corev1.PodStatus{
			Phase:      corev1.PodRunning,
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	}, trimmed)

	// The kubelet knows a static pod by another uid. Informers may trim a pod again.
	pod.Annotations[corev1.MirrorPodAnnotationKey] = "static"
	for object := any(pod); ; object = trimmed {
		trimmed, err = trimPod(object)
		require.NoError(t, err)
		require.Equal(t, v1alpha1.PodDigest("static", pod.Labels), DigestOf(trimmed.(*corev1.Pod)))
		if object != any(pod) {
			break
		}
	}
}
