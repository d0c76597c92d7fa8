package dataplane

import (
	"cmp"
	"context"
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/kernel"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/pacing"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

const (
	// reachWithin bounds one attempt to find out why the API server is silent.
	reachWithin = 3 * time.Second

	maxMessage  = 256
	maxFailures = 50
)

// reporter composes what the node's NodeEnforcement has to say. Its Writer stores it.
type reporter struct {
	*report.Writer
	live client.Reader
	node string

	mu      sync.Mutex
	start   metav1.Condition    // PodStartGuarded; without type before the first sync
	budget  metav1.Condition    // WithinBudget, likewise
	inForce map[types.UID]int64 // generation of each policy that the kernel holds
	pods    podList             // those that the kernel holds rules for

	surroundings surroundings
}

// surroundings are what a sync found on the node beside what it is to enforce. The zero value
// is a node like any other.
type surroundings struct {
	engines []string            // other engines of NetworkPolicy
	unread  kernel.FamilyErrors // why iptables can't print a table
	lacking string              // matches that rules do without
}

// reservation says with what reservation all rules are in force; nil for none.
func (f *surroundings) reservation() error {
	switch {
	case len(f.unread) > 0:
		return fmt.Errorf("Moat writes its own without reading others', as iptables can't: %w", f.unread) //nolint:staticcheck // a sentence
	case f.lacking != "":
		return fmt.Errorf("It or iptables lacks matches, so its rules do without (%s); load their modules, xt_*", f.lacking) //nolint:staticcheck // a sentence
	}
	return nil
}

func newReporter(cached client.Client, live client.Reader, node string, log logr.Logger) *reporter {
	return &reporter{
		Writer:  report.NewWriter(cached, live, node, log),
		live:    live,
		node:    node,
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

// takeBudget returns the condition WithinBudget of the last report.
func (r *reporter) takeBudget() metav1.Condition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.budget
}

// setBudget takes the condition WithinBudget for the next report.
func (r *reporter) setBudget(condition metav1.Condition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.budget = condition
}

// found takes what was found on the node for the next report.
func (r *reporter) found(f surroundings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.surroundings = f
}

// observe takes the outcome of a sync, and what the node can't enforce, the gravest
// first. It returns how many policies failed. The view is nil if the sync failed before
// it could look at the model.
func (r *reporter) observe(backend iptables.Backend, v *view, syncErr error, degraded []degradation) (failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var selecting []*policy.Policy
	var refused map[types.UID]error
	if v != nil {
		selecting, refused = v.present(), v.refused
	}
	r.followForce(v, generations(selecting, refused), syncErr)
	status := statusOf(selecting, r.inForce, refused, syncErr)
	if v != nil && syncErr == nil {
		r.pods.follow(v.Seen)
	}
	r.pods.report(status)
	status.Backend = string(backend)
	status.Conditions = append(conditionsOf(syncErr, degraded), conflictOf(r.surroundings.engines))
	if reservation := r.surroundings.reservation(); syncErr == nil && reservation != nil {
		status.Conditions[0].Message = message(fmt.Errorf("The kernel holds the rules of all policies that select a pod of this node. %w", reservation)) //nolint:staticcheck // a sentence
	}
	for _, condition := range []metav1.Condition{r.start, r.budget} {
		if condition.Type != "" {
			status.Conditions = append(status.Conditions, condition)
		}
	}
	failed = len(selecting) - int(status.PolicyCount) // status names so many of them at most
	r.Want(status)
	return failed
}

// followForce notes which policies the kernel holds. A sync that failed in one family
// leaves those in force whose pods have no address of it. One that did otherwise leaves those
// that were, unless the rules of a family are not what they were left.
func (r *reporter) followForce(v *view, present map[types.UID]int64, syncErr error) {
	if syncErr == nil {
		r.inForce = present
		return
	}
	if v == nil {
		return
	}
	broken, byFamily := kernel.BrokenFamilies(syncErr)
	for uid, families := range v.concerned() {
		holds := func(family ruleset.Family) bool { return broken[family] != nil }
		if generation, ok := present[uid]; ok && byFamily && !slices.ContainsFunc(families, holds) {
			r.inForce[uid] = generation
		}
		if slices.ContainsFunc(families, func(family ruleset.Family) bool { return slices.Contains(v.damaged, family) }) {
			delete(r.inForce, uid)
		}
	}
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

// statusOf says of each policy whether it is in force as it is written now. Namespaces
// share the room of both lists evenly.
func statusOf(selecting []*policy.Policy, inForce map[types.UID]int64, refused map[types.UID]error, syncErr error) *v1alpha1.NodeEnforcementStatus {
	var enforced []*policy.Policy
	var failed []failedPolicy
	sorted := slices.SortedFunc(slices.Values(selecting), func(a, b *policy.Policy) int { return cmp.Compare(a.UID, b.UID) })
	for _, p := range sorted {
		switch generation, known := inForce[p.UID]; {
		case len(p.Unreadable) > 0:
			failed = append(failed, failedPolicy{p, v1alpha1.NodeReasonPolicyUnreadable, errors.Join(p.Unreadable...)})
		case refused[p.UID] != nil:
			failed = append(failed, failedPolicy{p, refusalReason(refused[p.UID]), refused[p.UID]})
		case known && generation == p.Generation:
			enforced = append(enforced, p)
		default:
			failed = append(failed, failedPolicy{p, reasonOf(syncErr), syncErr})
		}
	}
	status := &v1alpha1.NodeEnforcementStatus{
		PolicyCount: int32(len(enforced)),
		Truncated:   len(enforced) > v1alpha1.MaxReportedPolicies,
	}
	for _, p := range shareFairly(enforced, v1alpha1.MaxReportedPolicies, func(p *policy.Policy) string { return p.Namespace }) {
		status.Policies = append(status.Policies, v1alpha1.EnforcedPolicy{UID: p.UID, Generation: p.Generation})
	}
	for _, f := range shareFairly(failed, maxFailures, func(f failedPolicy) string { return f.policy.Namespace }) {
		status.Failures = append(status.Failures, v1alpha1.PolicyFailure{UID: f.policy.UID, Reason: f.reason, Message: message(f.err)})
	}
	return status
}

// failedPolicy is a policy that isn't in force as it is written now, and why.
type failedPolicy struct {
	policy *policy.Policy
	reason string
	err    error
}

// refusalReason tells the policies that the kernel refuses from those that it isn't asked
// for.
func refusalReason(err error) string {
	var excess *budget.Excess
	switch {
	case errors.As(err, &excess), errors.Is(err, errOmitted):
		return v1alpha1.NodeReasonTooExpensive
	case errors.Is(err, pacing.ErrThrottled):
		return v1alpha1.NodeReasonThrottled
	}
	return v1alpha1.NodeReasonRestoreFailed
}

func conditionsOf(syncErr error, degraded []degradation) []metav1.Condition {
	synced := metav1.Condition{
		Type:    v1alpha1.NodeConditionDataplaneSynced,
		Status:  metav1.ConditionTrue,
		Reason:  v1alpha1.NodeReasonSynced,
		Message: "The kernel holds the rules of all policies that select a pod of this node",
	}
	if syncErr != nil {
		synced.Status, synced.Reason, synced.Message = metav1.ConditionFalse, reasonOf(syncErr), message(syncErr)
	}
	return []metav1.Condition{synced, degradedCondition(degraded)}
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

func reasonOf(err error) string {
	switch {
	case errors.Is(err, iptables.ErrMissing):
		return v1alpha1.NodeReasonIptablesMissing
	case kernel.MissingModule(err) != "":
		return v1alpha1.NodeReasonModuleMissing
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
