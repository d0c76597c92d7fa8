package absence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// taint is what a node without an agent gets. It evicts nothing: the pods that are
// there have their network.
var taint = corev1.Taint{Key: v1alpha1.AgentAbsentTaint, Effect: corev1.TaintEffectNoSchedule}

const (
	// writers is how many Nodes are written at a time: when Moat is removed, the
	// operator's rights may be gone within some tenths of a second.
	writers = 16

	// attempts is how often a Node is read again that another writer changed.
	attempts = 5

	// seenWithin and seenPoll bound the wait for the cache to show what was written.
	seenWithin = 5 * time.Second
	seenPoll   = 10 * time.Millisecond
)

// taints puts the taint on Nodes and takes it away. Each write names the
// resourceVersion that it was made of, since a list of taints is replaced as a
// whole: so it undoes no other writer's. It is safe for concurrent use.
type taints struct {
	client client.Client
	live   client.Reader
	events events.EventRecorder
}

func isTainted(node *corev1.Node) bool { return slices.ContainsFunc(node.Spec.Taints, isOurs) }

func isOurs(t corev1.Taint) bool { return t.Key == taint.Key }

// takeAll takes the taint from all the Nodes, at the same time. why is told.
func (t *taints) takeAll(ctx context.Context, names []string, why string) error {
	return each(names, func(name string) error {
		changed, err := t.change(ctx, name, func(node *corev1.Node) { node.Spec.Taints = slices.DeleteFunc(node.Spec.Taints, isOurs) })
		if err != nil {
			return fmt.Errorf("taking the taint of Node %s away: %w", name, err)
		}
		if changed != nil {
			log.FromContext(ctx).Info("Node takes new pods again", "node", name, "why", why)
			t.events.Eventf(referenceTo(changed), nil, corev1.EventTypeNormal, v1alpha1.EventReasonNewPodsAgain, "Untaint",
				"The scheduler may place new pods here again: %s", why)
		}
		return nil
	})
}

// putAll puts the taint on the Nodes, one after the other, for as long as may says so. It waits
// until the cache shows each, so that the next pass counts it.
func (t *taints) putAll(ctx context.Context, names []string, may func() bool) error {
	var errs []error
	for _, name := range names {
		if !may() {
			break
		}
		changed, err := t.change(ctx, name, func(node *corev1.Node) {
			if !isTainted(node) {
				node.Spec.Taints = append(node.Spec.Taints, taint)
			}
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("tainting Node %s: %w", name, err))
			continue
		}
		if changed != nil {
			log.FromContext(ctx).Info("No agent is Ready on a node whose guard closes new pods: it takes no new ones", "node", name)
			t.events.Eventf(referenceTo(changed), nil, corev1.EventTypeWarning, v1alpha1.EventReasonNoAgent, "Taint",
				"No agent of Moat was Ready here for %s, and new pods have no network until one is: the scheduler places none here", absentAfter)
			errs = append(errs, t.awaitCache(ctx, changed))
		}
	}
	return errors.Join(errs...)
}

// change edits a Node's taints and returns the Node as it was written, or nil where
// nothing was to change or there is no such Node.
func (t *taints) change(ctx context.Context, name string, edit func(*corev1.Node)) (*corev1.Node, error) {
	reader := client.Reader(t.client)
	for range attempts {
		node := &corev1.Node{}
		err := reader.Get(ctx, client.ObjectKey{Name: name}, node)
		if err != nil {
			return nil, client.IgnoreNotFound(err)
		}
		edited := node.DeepCopy()
		if edit(edited); slices.Equal(taintKeys(node), taintKeys(edited)) {
			return nil, nil
		}
		err = t.client.Patch(ctx, edited, client.MergeFromWithOptions(node, client.MergeFromWithOptimisticLock{}))
		if !apierrors.IsConflict(err) {
			return edited, client.IgnoreNotFound(err)
		}
		reader = t.live // The cache is behind.
	}
	return nil, fmt.Errorf("other writers changed it %d times in the meantime", attempts)
}

func taintKeys(node *corev1.Node) []string {
	keys := make([]string, 0, len(node.Spec.Taints))
	for _, t := range node.Spec.Taints {
		keys = append(keys, t.Key)
	}
	return keys
}

// awaitCache returns once the cache has the taint of a Node as it was written.
func (t *taints) awaitCache(ctx context.Context, written *corev1.Node) error {
	err := wait.PollUntilContextTimeout(ctx, seenPoll, seenWithin, true, func(ctx context.Context) (bool, error) {
		node := &corev1.Node{}
		if err := t.client.Get(ctx, client.ObjectKeyFromObject(written), node); err != nil {
			return true, client.IgnoreNotFound(err)
		}
		return isTainted(node) == isTainted(written), nil
	})
	if err != nil {
		return fmt.Errorf("waiting to see what was written to Node %s: %w", written.Name, err)
	}
	return nil
}

// each does the work for all names, some at a time.
func each(names []string, work func(string) error) error {
	errs := make([]error, len(names))
	var running sync.WaitGroup
	free := make(chan struct{}, writers)
	for i, name := range names {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			errs[i] = work(name)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// referenceTo names a Node without its resourceVersion, with which no two events are
// the same.
func referenceTo(node *corev1.Node) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}
