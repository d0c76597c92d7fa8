// Package lookout reads for an agent what dataplane/departure needs for its decision. It watches
// the release's marker as long as the agent runs. When the agent was told to end, it reads the
// agent's Namespace, Pod, DaemonSet and Node.
//
// It doesn't use the manager's cache. So an agent that lacks a right to read one of these objects
// still enforces policies, and its rules stay when it ends.
package lookout

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/departure"
	"github.com/moat-dev/moat/dataplane/placement"
)

// The agent's own Pod, Node and Namespace are read with the rights that it has for all.
//
// +kubebuilder:rbac:groups=apps,namespace=moat-system,resources=daemonsets,resourceNames=moat-agent,verbs=get

const (
	// daemonSetName is the DaemonSet of the agents, in chart and config.
	daemonSetName = "moat-agent"

	// answerWithin is how long the API server may take to answer all questions of one sight.
	answerWithin = 5 * time.Second
)

// Self names the agent's own objects.
type Self struct {
	Namespace string // that Moat is installed in
	Pod       string // its own; empty where it isn't known
	Node      string
}

// Lookout reads for one agent. It is safe for concurrent use.
type Lookout struct {
	client client.WithWatch
	self   Self
	log    logr.Logger
	marker *marker
}

// New returns a lookout that reads with the client.
func New(reader client.WithWatch, self Self, log logr.Logger) *Lookout {
	return &Lookout{client: reader, self: self, log: log, marker: newMarker(reader, self.Namespace, log)}
}

// Watch watches the release's marker until the context ends.
func (l *Lookout) Watch(ctx context.Context) { l.marker.watch(ctx) }

// Decide decides what happens to the node's rules after the agent was told to end. It
// asks the API server until there is a verdict. That takes milliseconds where another agent
// follows, and less than 30 seconds in all. The namespaceEnds say what the agent's watch of
// namespaces has seen of Moat's own. If the context ends first, the rules stay.
//
// Watch has to run at the same time.
func (l *Lookout) Decide(ctx context.Context, namespaceEnds func() bool) departure.Decision {
	told := time.Now()
	for {
		marked := l.marker.changed()
		sight := &departure.Sight{Namespace: departure.Ending}
		if !namespaceEnds() {
			sight = l.look(ctx)
		}
		sight.Waited = time.Since(told)
		sight.Marker = l.marker.seen(time.Now())
		decision := departure.Decide(sight)
		if decision.Verdict != departure.Wait {
			return decision
		}
		l.log.Info("Told to end; the rules stay for now", "reason", decision.Reason, "nextLook", decision.Again.String())
		select {
		case <-ctx.Done():
			return departure.Decision{Verdict: departure.Leave, Reason: "it had to end before that was clear: " + decision.Reason}
		case <-time.After(decision.Again):
		case <-marked:
		}
	}
}

// look asks the API server. No answer comes from a cache.
func (l *Lookout) look(ctx context.Context) *departure.Sight {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	s := &departure.Sight{}
	if s.Namespace = l.ask(ctx, client.ObjectKey{Name: l.self.Namespace}, &corev1.Namespace{}); s.Namespace == departure.Ending || s.Namespace == departure.Gone {
		return s
	}
	pod, daemonSet, node := &corev1.Pod{}, &appsv1.DaemonSet{}, &corev1.Node{}
	if l.self.Pod != "" {
		if s.Pod = l.ask(ctx, client.ObjectKey{Namespace: l.self.Namespace, Name: l.self.Pod}, pod); s.Pod == departure.Found {
			return s
		}
	}
	if s.DaemonSet = l.ask(ctx, client.ObjectKey{Namespace: l.self.Namespace, Name: daemonSetName}, daemonSet); s.DaemonSet != departure.Found {
		return s
	}
	if s.Node = l.ask(ctx, client.ObjectKey{Name: l.self.Node}, node); s.Node != departure.Found && s.Node != departure.Ending {
		return s
	}
	s.Wanted = placement.Of(&daemonSet.Spec.Template.Spec, node)
	if s.Pod == departure.Ending {
		s.Own = placement.Of(&pod.Spec, node)
	}
	return s
}

// ask reads an object. The object stays empty where there is none.
func (l *Lookout) ask(ctx context.Context, key client.ObjectKey, object client.Object) departure.Answer {
	err := l.client.Get(ctx, key, object)
	switch {
	case err == nil && object.GetDeletionTimestamp() != nil:
		return departure.Ending
	case err == nil:
		return departure.Found
	case apierrors.IsNotFound(err):
		return departure.Gone
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return departure.Refused
	}
	if !errors.Is(err, context.Canceled) {
		l.log.Error(err, "The API server gave no answer", "object", key.String())
	}
	return departure.Unanswered
}
