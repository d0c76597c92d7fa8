package v1alpha1

import (
	"crypto/sha256"
	"encoding/base32"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// podDigestBytes is 80 bits, 16 characters: no two pods of a cluster, and no two sets of
// labels of one pod, have the same digest by chance.
const podDigestBytes = 10

var podDigestEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv")

// PodDigest names a pod with the labels that it has, as NodeEnforcementStatus.Pods does.
// The uid is that by which the kubelet knows the pod: of a static pod it is in the annotation
// kubernetes.io/config.mirror.
func PodDigest(uid types.UID, labels map[string]string) string {
	// Room for most pods, so that nothing is allocated but the result.
	var room [1024]byte
	var keyRoom [16]string
	keys := keyRoom[:0]
	for key := range labels {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	content := append(room[:0], uid...)
	for _, key := range keys {
		content = append(content, 0) // which neither keys nor values hold
		content = append(content, key...)
		content = append(content, 0)
		content = append(content, labels[key]...)
	}
	sum := sha256.Sum256(content)
	return podDigestEncoding.EncodeToString(sum[:podDigestBytes])
}
