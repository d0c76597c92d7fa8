package dataplane

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/metrics"
)

// degradation is something that the node can't enforce although its agent works. Its
// source finds it and names it; the agent reports all of them in the condition Degraded.
// An agent of a degraded node is Ready: it does what can be done, and one node must not
// stop the rollout of all.
type degradation struct {
	reason string // one of degradedReasons
	err    error  // what is wrong, and what to do about it
}

// degradedReasons are the reasons of the condition Degraded, the gravest first.
var degradedReasons = []string{
	v1alpha1.NodeReasonBridgeNetfilterOff, // pods of the node reach each other past all rules
	v1alpha1.NodeReasonProxyModeIPVS,      // Services lead past the ingress rules of the node's pods
	v1alpha1.NodeReasonStorageUnreadable,  // no change arrives
	v1alpha1.NodeReasonConnectionsUncut,   // connections from before a policy go on
}

// degradedBy returns the degradation that an error of a source is, none for nil.
func degradedBy(reason string, err error) []degradation {
	if err == nil {
		return nil
	}
	return []degradation{{reason, err}}
}

// degradations returns what the node can't enforce now, the gravest first.
func (a *Agent) degradations(now time.Time) []degradation {
	found := slices.Concat(
		a.byPasses(now),
		degradedBy(v1alpha1.NodeReasonStorageUnreadable, a.storage.Failure()),
		degradedBy(v1alpha1.NodeReasonConnectionsUncut, a.enforcer.cutter.Failure()),
	)
	sortDegradations(found)
	return found
}

// sortDegradations puts the gravest first.
func sortDegradations(found []degradation) {
	slices.SortStableFunc(found, func(a, b degradation) int {
		return slices.Index(degradedReasons, a.reason) - slices.Index(degradedReasons, b.reason)
	})
}

// reasonsOf returns the reasons in the given order.
func reasonsOf(found []degradation) []string {
	reasons := make([]string, len(found))
	for i := range found {
		reasons[i] = found[i].reason
	}
	return reasons
}

// degradedCondition says what the node can't enforce. It expects the gravest first, and
// has the reason of that one. Where there are several the message begins with all of
// their reasons, since it may have no room for all that they say.
func degradedCondition(found []degradation) metav1.Condition {
	condition := metav1.Condition{
		Type:    v1alpha1.NodeConditionDegraded,
		Status:  metav1.ConditionFalse,
		Reason:  v1alpha1.NodeReasonHealthy,
		Message: "Everything on this node can be enforced",
	}
	if len(found) == 0 {
		return condition
	}
	errs := make([]error, len(found))
	for i := range found {
		errs[i] = found[i].err
	}
	err := errors.Join(errs...)
	if len(found) > 1 {
		err = fmt.Errorf("%s: %w", strings.Join(reasonsOf(found), ", "), err)
	}
	condition.Status, condition.Reason, condition.Message = metav1.ConditionTrue, found[0].reason, message(err)
	return condition
}

// nodeNews tells of reasons that come and go: in the log, in the metric and by an event
// of the Node. It is safe for concurrent use.
type nodeNews struct {
	node    *corev1.Node // as much of it as an event names
	log     logr.Logger
	events  events.EventRecorder // nil: no events
	limit   flowcontrol.RateLimiter
	metrics *metrics.Metrics

	mu   sync.Mutex
	told []degradation
}

func newNodeNews(node string, recorder events.EventRecorder, m *metrics.Metrics, log logr.Logger) *nodeNews {
	return &nodeNews{
		// kubectl describe finds events by the Node's name as its uid, as the kubelet
		// writes them (pkg/kubelet/kubelet.go: nodeRef).
		node: &corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: node, UID: types.UID(node)},
		},
		log: log, events: recorder, metrics: m,
		limit: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventBurst),
	}
}

// tell takes what is found now, the gravest first, and reports whether the condition
// Degraded says something else than before.
func (n *nodeNews) tell(found []degradation) (changed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.told
	n.told = found
	was, is := reasonsOf(before), reasonsOf(found)
	for _, d := range found {
		if !slices.Contains(was, d.reason) {
			n.log.Error(d.err, "The node can't enforce everything", "reason", d.reason)
			n.event(corev1.EventTypeWarning, d.reason, d.reason, message(d.err))
		}
	}
	for _, d := range before {
		if !slices.Contains(is, d.reason) {
			n.log.Info("The node can enforce again what it couldn't", "reason", d.reason)
			n.event(corev1.EventTypeNormal, v1alpha1.EventReasonRecovered, d.reason, d.reason+" is over")
		}
	}
	n.metrics.DegradedBy(is)
	return degradedCondition(before) != degradedCondition(found)
}

// event writes an event of the Node, unless there were many. The action is what it is
// about: events that differ in it are never counted as one.
func (n *nodeNews) event(kind, reason, action, note string) {
	if n.events != nil && n.limit.TryAccept() {
		n.events.Eventf(n.node, nil, kind, reason, action, "%s", note)
	}
}
