package report

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements,verbs=get;create;update;delete
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements/status,verbs=update

const (
	// Every is the least time between two writes, so that a burst of changes costs
	// the API server one write. A jitter keeps the nodes apart.
	Every  = 2 * time.Second
	jitter = time.Second

	// recheckEvery is how often the stored report is compared with the last one: a user or a
	// program may have deleted it.
	recheckEvery = 5 * time.Minute

	// ownedEvery and ownedFor are how often, and for how long, the stored report is
	// read after the Node was registered again. The garbage collector deletes the
	// report of the former Node, and may do so late: it can delete the report that
	// the new Node owns already.
	ownedEvery = 5 * time.Second
	ownedFor   = 2 * time.Minute

	// retryMost bounds the wait after a failed write, which doubles. Where one change
	// concerns thousands of nodes, an API server refuses many of their writes with
	// "too many requests", and a policy is proven only after the last of these writes.
	retryMost = 8 * time.Second
)

// Writer keeps the NodeEnforcement of one node. It is safe for concurrent use.
type Writer struct {
	cached client.Client // the Node comes from the cache
	live   client.Reader // the report doesn't: no other part of the agent reads it
	node   string
	log    logr.Logger
	wake   chan struct{}
	again  chan struct{} // the Node was registered again

	// known is the report as it was stored last, or nil. With it, a change costs the API
	// server one request and not two. After a write by another program, the next write
	// fails with a conflict.
	known *v1alpha1.NodeEnforcement

	mu     sync.Mutex
	wanted *v1alpha1.NodeEnforcementStatus
	owner  types.UID // of the last Node that was seen
	boot   string    // of that Node
}

// NewWriter makes a Writer that writes nothing before Want is called. The cached client has
// the Node of that name and makes the writes. The live reader bypasses any cache.
func NewWriter(cached client.Client, live client.Reader, node string, log logr.Logger) *Writer {
	return &Writer{cached: cached, live: live, node: node, log: log, wake: make(chan struct{}, 1), again: make(chan struct{}, 1)}
}

// SawNode takes each version of the node's Node. Another uid than before means that the Node was
// registered again: the report that the former Node owned is deleted, or will be, and the Writer
// makes a new one. The Writer also writes a new boot, since this agent began after it.
func (w *Writer) SawNode(node *corev1.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	again := w.owner != "" && w.owner != node.UID
	if w.wanted != nil && w.boot != node.Status.NodeInfo.BootID {
		w.poke()
	}
	w.owner, w.boot = node.UID, node.Status.NodeInfo.BootID
	if !again {
		return
	}
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// Want takes what the report has to say from now on. The times of its conditions
// don't count: a condition that stays keeps its time. The status is the Writer's.
func (w *Writer) Want(status *v1alpha1.NodeEnforcementStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted != nil && same(w.wanted, status) {
		return
	}
	w.wanted = status
	w.poke()
}

// poke wakes the Writer.
func (w *Writer) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Wanted returns the last status that Want took, or nil. It must not be changed.
func (w *Writer) Wanted() *v1alpha1.NodeEnforcementStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted
}

// same compares two statuses without the times of their conditions.
func same(a, b *v1alpha1.NodeEnforcementStatus) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	for _, status := range []*v1alpha1.NodeEnforcementStatus{x, y} {
		for i := range status.Conditions {
			status.Conditions[i].LastTransitionTime = metav1.Time{}
		}
	}
	return equality.Semantic.DeepEqual(x, y)
}

// Start writes reports until the context ends. It writes the first change of a burst at
// once, and all further changes together.
func (w *Writer) Start(ctx context.Context) error {
	recheck := time.NewTicker(recheckEvery)
	defer recheck.Stop()
	var wait time.Duration
	var retry, owned <-chan time.Time
	var ownedUntil time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		case <-retry:
		case <-recheck.C:
			w.known = nil
		case <-w.again:
			w.known, ownedUntil = nil, time.Now().Add(ownedFor)
			owned = time.After(ownedEvery)
		case now := <-owned:
			w.known, owned = nil, nil
			if now.Before(ownedUntil) {
				owned = time.After(ownedEvery)
			}
		}
		if err := w.write(ctx); err != nil && ctx.Err() == nil {
			wait = min(max(Every, 2*wait), retryMost)
			retry = time.After(wait)
			w.log.Error(err, "The report could not be written", "retryIn", wait.String())
		} else {
			wait, retry = 0, nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(Every + rand.N(jitter)):
		}
	}
}

// NeedLeaderElection is false: every node reports for itself.
func (w *Writer) NeedLeaderElection() bool { return false }

// write stores the wanted status if the stored one differs.
func (w *Writer) write(ctx context.Context) error {
	wanted := w.Wanted()
	if wanted == nil {
		return nil
	}
	err := w.store(ctx, wanted.DeepCopy())
	// The operator wrote its field since, or the report was deleted.
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		err = w.store(ctx, wanted.DeepCopy())
	}
	return err
}

func (w *Writer) store(ctx context.Context, wanted *v1alpha1.NodeEnforcementStatus) error {
	node := &corev1.Node{}
	if err := w.cached.Get(ctx, client.ObjectKey{Name: w.node}, node); err != nil {
		return fmt.Errorf("getting Node %s: %w", w.node, err)
	}
	stored, err := w.ensure(ctx, node)
	if err != nil {
		return err
	}
	wanted.Agent = stored.Status.Agent // the operator's
	wanted.NodeUID, wanted.BootID = node.UID, node.Status.NodeInfo.BootID
	if same(&stored.Status, wanted) {
		w.known = stored
		return nil
	}
	conditions := stored.Status.Conditions
	for _, condition := range wanted.Conditions {
		apimeta.SetStatusCondition(&conditions, condition)
	}
	stored.Status = *wanted
	stored.Status.Conditions = conditions
	w.known = nil
	if err := w.cached.Status().Update(ctx, stored); err != nil {
		return fmt.Errorf("updating status of NodeEnforcement %s: %w", w.node, err)
	}
	w.known = stored
	return nil
}

// ensure returns the node's NodeEnforcement, made or corrected so that the
// present Node owns it: the report goes when the Node goes.
func (w *Writer) ensure(ctx context.Context, node *corev1.Node) (*v1alpha1.NodeEnforcement, error) {
	if w.known != nil && ownedBy(w.known, node) {
		return w.known.DeepCopy(), nil
	}
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}

	report := &v1alpha1.NodeEnforcement{}
	err := w.live.Get(ctx, client.ObjectKey{Name: w.node}, report)
	if apierrors.IsNotFound(err) {
		report.Name, report.OwnerReferences = w.node, []metav1.OwnerReference{owner}
		if err := w.cached.Create(ctx, report); err != nil {
			return nil, fmt.Errorf("creating NodeEnforcement %s: %w", w.node, err)
		}
		return report, nil
	}
	if err != nil {
		return nil, fmt.Errorf("getting NodeEnforcement %s: %w", w.node, err)
	}
	if ownedBy(report, node) {
		return report, nil
	}
	report.OwnerReferences = []metav1.OwnerReference{owner}
	if err := w.cached.Update(ctx, report); err != nil {
		return nil, fmt.Errorf("updating the owner of NodeEnforcement %s: %w", w.node, err)
	}
	return report, nil
}

func ownedBy(report *v1alpha1.NodeEnforcement, node *corev1.Node) bool {
	return len(report.OwnerReferences) == 1 && report.OwnerReferences[0].UID == node.UID
}

// Withdraw deletes the node's report, after the node's rules were removed. No Writer of the node
// may run at that time: it would make the report again. A report that isn't there is no error.
func Withdraw(ctx context.Context, writer client.Writer, node string) error {
	report := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: node}}
	if err := client.IgnoreNotFound(writer.Delete(ctx, report)); err != nil {
		return fmt.Errorf("deleting NodeEnforcement %s: %w", node, err)
	}
	return nil
}
