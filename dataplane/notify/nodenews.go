package notify

import (
	"slices"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/report"
)

// NodeNews tells of reasons that come and go: in the log, in the metric and by an event
// of the Node. It is safe for concurrent use.
type NodeNews struct {
	node    *corev1.Node // as much of it as an event names
	log     logr.Logger
	events  events.EventRecorder // nil: no events
	limit   flowcontrol.RateLimiter
	metrics *metrics.Metrics

	mu   sync.Mutex
	told []report.Degradation
}

// NewNodeNews returns one that has told nothing yet. Without a recorder there are no events.
func NewNodeNews(node string, recorder events.EventRecorder, m *metrics.Metrics, log logr.Logger) *NodeNews {
	return &NodeNews{
		// kubectl describe finds events by the Node's name as its uid, as the kubelet
		// writes them (pkg/kubelet/kubelet.go: nodeRef).
		node: &corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: node, UID: types.UID(node)},
		},
		log: log, events: recorder, metrics: m,
		limit: NewLimit(),
	}
}

// Tell takes what is found now, the gravest first, and reports whether the condition
// Degraded says something else than before.
func (n *NodeNews) Tell(found []report.Degradation) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.told
	n.told = found
	was, is := report.ReasonsOf(before), report.ReasonsOf(found)
	for _, d := range found {
		if !slices.Contains(was, d.Reason) {
			n.log.Error(d.Err, "The node can't enforce everything", "reason", d.Reason)
			n.Event(corev1.EventTypeWarning, d.Reason, d.Reason, report.Message(d.Err))
		}
	}
	for _, d := range before {
		if !slices.Contains(is, d.Reason) {
			n.log.Info("The node can enforce again what it couldn't", "reason", d.Reason)
			n.Event(corev1.EventTypeNormal, v1alpha1.EventReasonRecovered, d.Reason, d.Reason+" is over")
		}
	}
	n.metrics.DegradedBy(is)
	return report.DegradedCondition(before) != report.DegradedCondition(found)
}

// Event writes an event of the Node, unless there were many. The action is what it is
// about: events that differ in it are never counted as one.
func (n *NodeNews) Event(kind, reason, action, note string) {
	if n.events != nil && n.limit.TryAccept() {
		n.events.Eventf(n.node, nil, kind, reason, action, "%s", note)
	}
}
