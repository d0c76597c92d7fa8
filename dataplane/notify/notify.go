package notify

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// Of one kind there is one event in ten seconds, after a burst.
const (
	eventsPerSecond = 0.1
	Burst           = 10
)

// Speaker is the node whose agent says something of a pod: the admission policy of events
// asks for it.
func Speaker(node string) *corev1.Node {
	return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: node}}
}

// NewLimit returns the limit of events of one kind.
func NewLimit() flowcontrol.RateLimiter {
	return flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, Burst)
}
