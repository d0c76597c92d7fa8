package dataplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
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
	"github.com/moat-dev/moat/dataplane/ipset"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
)

// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements,verbs=get;create;update
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements/status,verbs=update

// Timing and limits of reports.
const (
	// reportEvery is the least time between two writes, so that a burst of
	// changes costs the API server one; reportJitter keeps the nodes apart.
	reportEvery  = 2 * time.Second
	reportJitter = time.Second

	// recheckEvery is how often the stored report is compared with the last one:
	// somebody may have deleted it.
	recheckEvery = 5 * time.Minute

	// reachWithin bounds one attempt to find out why the API server is silent.
	reachWithin = 3 * time.Second

	maxMessage  = 256
	maxFailures = 50
)

// reporter keeps the node's NodeEnforcement up to date.
type reporter struct {
	cached client.Client // the Node comes from the cache
	live   client.Reader // the report itself doesn't: only its writer cares
	node   string
	log    logr.Logger
	wake   chan struct{}

	mu      sync.Mutex
	wanted  *v1alpha1.NodeEnforcementStatus
	start   metav1.Condition    // PodStartGuarded; without type before the first sync
	inForce map[types.UID]int64 // generation of each policy that the kernel holds
	engines []string            // other engines of NetworkPolicy on the node
}

func newReporter(cached client.Client, live client.Reader, node string, log logr.Logger) *reporter {
	return &reporter{
		cached:  cached,
		live:    live,
		node:    node,
		log:     log,
		wake:    make(chan struct{}, 1),
		inForce: map[types.UID]int64{},
	}
}

// setPodStart takes the condition PodStartGuarded for the next report, and reports
// whether it is another one than before.
func (r *reporter) setPodStart(condition metav1.Condition) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.start != condition
	r.start = condition
	return changed
}

// beside takes the other engines of NetworkPolicy that were found on the node.
func (r *reporter) beside(engines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.engines = engines
}

// observe takes the outcome of a sync and returns how many policies failed. The
// view is nil if the sync failed before it could look at the model.
func (r *reporter) observe(backend iptables.Backend, v *view, syncErr, degraded error) (failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var selecting []*policy.Policy
	var refused map[types.UID]error
	if v != nil {
		selecting, refused = v.selecting, v.refused
	}
	if syncErr == nil {
		r.inForce = generations(selecting, refused)
	}
	status := statusOf(selecting, r.inForce, refused, syncErr)
	status.Backend = string(backend)
	status.Conditions = append(conditionsOf(syncErr, degraded), conflictOf(r.engines))
	if r.start.Type != "" {
		status.Conditions = append(status.Conditions, r.start)
	}
	failed = len(selecting) - int(status.PolicyCount) // status names so many of them at most
	if r.wanted != nil && sameStatus(r.wanted, status) {
		return failed
	}
	r.wanted = status
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return failed
}

// generations leaves out those that the kernel refused.
func generations(policies []*policy.Policy, refused map[types.UID]error) map[types.UID]int64 {
	inForce := make(map[types.UID]int64, len(policies))
	for _, p := range policies {
		if refused[p.UID] == nil {
			inForce[p.UID] = p.Generation
		}
	}
	return inForce
}

// statusOf says of each policy whether it is in force as it is written now.
func statusOf(selecting []*policy.Policy, inForce map[types.UID]int64, refused map[types.UID]error, syncErr error) *v1alpha1.NodeEnforcementStatus {
	status := &v1alpha1.NodeEnforcementStatus{}
	sorted := slices.SortedFunc(slices.Values(selecting), func(a, b *policy.Policy) int { return cmp.Compare(a.UID, b.UID) })
	for _, p := range sorted {
		switch generation, known := inForce[p.UID]; {
		case len(p.Unreadable) > 0:
			addFailure(status, p, v1alpha1.NodeReasonPolicyUnreadable, errors.Join(p.Unreadable...))
		case refused[p.UID] != nil:
			addFailure(status, p, v1alpha1.NodeReasonRestoreFailed, refused[p.UID])
		case known && generation == p.Generation:
			status.PolicyCount++
			status.Policies = append(status.Policies, v1alpha1.EnforcedPolicy{UID: p.UID, Generation: p.Generation})
		default:
			addFailure(status, p, reasonOf(syncErr), syncErr)
		}
	}
	if len(status.Policies) > v1alpha1.MaxReportedPolicies {
		status.Policies = status.Policies[:v1alpha1.MaxReportedPolicies]
		status.Truncated = true
	}
	return status
}

func addFailure(status *v1alpha1.NodeEnforcementStatus, p *policy.Policy, reason string, err error) {
	if len(status.Failures) == maxFailures {
		return
	}
	status.Failures = append(status.Failures, v1alpha1.PolicyFailure{UID: p.UID, Reason: reason, Message: message(err)})
}

func conditionsOf(syncErr, degraded error) []metav1.Condition {
	synced := metav1.Condition{
		Type:    v1alpha1.NodeConditionDataplaneSynced,
		Status:  metav1.ConditionTrue,
		Reason:  v1alpha1.NodeReasonSynced,
		Message: "The kernel holds the rules of all policies that select a pod of this node",
	}
	if syncErr != nil {
		synced.Status, synced.Reason, synced.Message = metav1.ConditionFalse, reasonOf(syncErr), message(syncErr)
	}
	degradedCondition := metav1.Condition{
		Type:    v1alpha1.NodeConditionDegraded,
		Status:  metav1.ConditionFalse,
		Reason:  v1alpha1.NodeReasonHealthy,
		Message: "Everything on this node can be enforced",
	}
	if degraded != nil {
		degradedCondition.Status = metav1.ConditionTrue
		degradedCondition.Reason = degradedReason(degraded)
		degradedCondition.Message = message(degraded)
	}
	return []metav1.Condition{synced, degradedCondition}
}

// conflictOf is a condition of its own: Moat's rules are in force beside those of
// another engine, but what passes has to be allowed by both.
func conflictOf(engines []string) metav1.Condition {
	if len(engines) == 0 {
		return metav1.Condition{
			Type:    v1alpha1.NodeConditionPolicyEngineConflict,
			Status:  metav1.ConditionFalse,
			Reason:  v1alpha1.NodeReasonNoOtherEngine,
			Message: "No rules of another NetworkPolicy engine are on this node",
		}
	}
	text := "Rules of another NetworkPolicy engine are on this node: " + strings.Join(engines, ", ") +
		". Traffic has to pass both; remove that engine, or what it left"
	return metav1.Condition{
		Type:    v1alpha1.NodeConditionPolicyEngineConflict,
		Status:  metav1.ConditionTrue,
		Reason:  v1alpha1.NodeReasonOtherEngineFound,
		Message: message(errors.New(text)),
	}
}

func degradedReason(degraded error) string {
	var unreadable *storageError
	if errors.As(degraded, &unreadable) {
		return v1alpha1.NodeReasonStorageUnreadable
	}
	return v1alpha1.NodeReasonBridgeNetfilterOff
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, iptables.ErrMissing):
		return v1alpha1.NodeReasonIptablesMissing
	case iptables.IsPermission(err) || ipset.IsPermission(err):
		return v1alpha1.NodeReasonPermissionDenied
	case iptables.IsLock(err):
		return v1alpha1.NodeReasonLockUnavailable
	case iptables.IsFailure(err):
		return v1alpha1.NodeReasonRestoreFailed
	}
	return v1alpha1.NodeReasonSyncFailed
}

// message is cut between characters: the API server replaces what is no UTF-8, and
// the stored report would differ from the wanted one for ever.
func message(err error) string {
	text := strings.ToValidUTF8(fmt.Sprint(err), "?")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage-3], "") + "..."
	}
	return text
}

// sameStatus ignores when a condition changed last.
func sameStatus(a, b *v1alpha1.NodeEnforcementStatus) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	for _, status := range []*v1alpha1.NodeEnforcementStatus{x, y} {
		for i := range status.Conditions {
			status.Conditions[i].LastTransitionTime = metav1.Time{}
		}
	}
	return equality.Semantic.DeepEqual(x, y)
}

// reachAPIServer reads the node's Node from the API server, to learn why it
// doesn't answer.
func (r *reporter) reachAPIServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	if err := r.live.Get(ctx, client.ObjectKey{Name: r.node}, &corev1.Node{}); err != nil {
		return fmt.Errorf("getting Node %s: %w", r.node, err)
	}
	return nil
}

// Start writes reports until the context ends: the first change of a burst at
// once, the others together.
func (r *reporter) Start(ctx context.Context) error {
	retry := newBackoff(reportEvery, retryMost)
	recheck := time.NewTicker(recheckEvery)
	defer recheck.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-retry.due():
		case <-recheck.C:
		}
		if err := r.write(ctx); err != nil && ctx.Err() == nil {
			r.log.Error(err, "The report could not be written", "retryIn", retry.next().String())
		} else {
			retry.reset()
		}
		if !sleep(ctx, reportEvery+rand.N(reportJitter)) {
			return nil
		}
	}
}

// NeedLeaderElection is false: every node reports for itself.
func (r *reporter) NeedLeaderElection() bool { return false }

// write stores the wanted status if the stored one differs.
func (r *reporter) write(ctx context.Context) error {
	r.mu.Lock()
	wanted := r.wanted.DeepCopy()
	r.mu.Unlock()
	if wanted == nil {
		return nil
	}
	stored, err := r.ensure(ctx)
	if err != nil {
		return err
	}
	if sameStatus(&stored.Status, wanted) {
		return nil
	}
	conditions := stored.Status.Conditions
	for _, condition := range wanted.Conditions {
		apimeta.SetStatusCondition(&conditions, condition)
	}
	stored.Status = *wanted
	stored.Status.Conditions = conditions
	if err := r.cached.Status().Update(ctx, stored); err != nil {
		return fmt.Errorf("updating status of NodeEnforcement %s: %w", r.node, err)
	}
	return nil
}

// ensure returns the node's NodeEnforcement, made or corrected so that the
// present Node owns it: the report goes when the Node goes.
func (r *reporter) ensure(ctx context.Context) (*v1alpha1.NodeEnforcement, error) {
	node := &corev1.Node{}
	if err := r.cached.Get(ctx, client.ObjectKey{Name: r.node}, node); err != nil {
		return nil, fmt.Errorf("getting Node %s: %w", r.node, err)
	}
	owner := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}

	report := &v1alpha1.NodeEnforcement{}
	err := r.live.Get(ctx, client.ObjectKey{Name: r.node}, report)
	if apierrors.IsNotFound(err) {
		report.Name, report.OwnerReferences = r.node, []metav1.OwnerReference{owner}
		if err := r.cached.Create(ctx, report); err != nil {
			return nil, fmt.Errorf("creating NodeEnforcement %s: %w", r.node, err)
		}
		return report, nil
	}
	if err != nil {
		return nil, fmt.Errorf("getting NodeEnforcement %s: %w", r.node, err)
	}
	if len(report.OwnerReferences) == 1 && report.OwnerReferences[0].UID == node.UID {
		return report, nil
	}
	report.OwnerReferences = []metav1.OwnerReference{owner}
	if err := r.cached.Update(ctx, report); err != nil {
		return nil, fmt.Errorf("updating the owner of NodeEnforcement %s: %w", r.node, err)
	}
	return report, nil
}
