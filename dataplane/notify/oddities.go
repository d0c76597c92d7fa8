package notify

import (
	"errors"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/report"
)

// actionReadStatus is the action of the event about such a pod.
const actionReadStatus = "ReadStatus"

// Oddities tells people of odd pods, of each once.
type Oddities struct {
	node    string
	log     logr.Logger
	events  events.EventRecorder // nil: no events
	limit   flowcontrol.RateLimiter
	metrics *metrics.Metrics
	told    map[types.NamespacedName]node.OddPod
}

// NewOddities returns one that has told nothing yet. Without a recorder there are no events.
func NewOddities(node string, recorder events.EventRecorder, m *metrics.Metrics, log logr.Logger) *Oddities {
	return &Oddities{
		node: node, log: log, events: recorder, metrics: m,
		limit: NewLimit(),
	}
}

// Tell takes the pods that are odd now.
func (o *Oddities) Tell(now map[types.NamespacedName]node.OddPod) {
	for key, odd := range now {
		if o.told[key] != odd {
			o.log.Info("A pod's status shows addresses that no pod can have; they are left out", "pod", key, "addresses", odd.Shows)
			o.event(key, odd)
		}
	}
	o.told = now
	o.metrics.Unusable(len(now))
}

func (o *Oddities) event(key types.NamespacedName, odd node.OddPod) {
	if o.events == nil || !o.limit.TryAccept() {
		return
	}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: odd.UID},
	}
	o.events.Eventf(pod, Speaker(o.node), corev1.EventTypeWarning, v1alpha1.EventReasonUnusableAddress, actionReadStatus, "%s",
		report.Message(errors.New("Moat leaves out addresses of this pod's status that no pod can have: "+odd.Shows)))
}
