package report

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
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

const (
	// reachWithin bounds one attempt to find out why the API server is silent.
	reachWithin = 3 * time.Second

	// MaxMessage bounds the messages of conditions and failures, in bytes.
	MaxMessage = 256

	maxFailures = 50
)

// Reporter composes what the node's NodeEnforcement has to say. Its Writer stores it.
type Reporter struct {
	*Writer
	live client.Reader
	node string

	mu      sync.Mutex
	start   metav1.Condition    // PodStartGuarded; without type before the first sync
	budget  metav1.Condition    // WithinBudget, likewise
	inForce map[types.UID]int64 // generation of each policy that the kernel holds
	pods    podList             // those that the kernel holds rules for

	surroundings Surroundings
}

// Surroundings are what a sync found on the node beside what it is to enforce. The zero value
// is a node like any other.
type Surroundings struct {
	Engines []string            // other engines of NetworkPolicy
	Unread  kernel.FamilyErrors // why iptables can't print a table
	Lacking string              // matches that rules do without
}

// reservation says with what reservation all rules are in force; nil for none.
func (f *Surroundings) reservation() error {
	switch {
	case len(f.Unread) > 0:
		return fmt.Errorf("Moat writes its own without reading others', as iptables can't: %w", f.Unread) //nolint:staticcheck // a sentence
	case f.Lacking != "":
		return fmt.Errorf("It or iptables lacks matches, so its rules do without (%s); load their modules, xt_*", f.Lacking) //nolint:staticcheck // a sentence
	}
	return nil
}

// New returns the reporter of a node. It reads from the cache what its Writer compares with, and
// from the API server itself what it must know for certain.
func New(cached client.Client, live client.Reader, node string, log logr.Logger) *Reporter {
	return &Reporter{
		Writer:  NewWriter(cached, live, node, log),
		live:    live,
		node:    node,
		inForce: map[types.UID]int64{},
	}
}

// SetPodStart takes the condition PodStartGuarded for the next report, and reports
// whether it is another one than before.
func (r *Reporter) SetPodStart(condition metav1.Condition) (changed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed = r.start != condition
	r.start = condition
	return changed
}

// TakeBudget returns the condition WithinBudget of the last report.
func (r *Reporter) TakeBudget() metav1.Condition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.budget
}

// SetBudget takes the condition WithinBudget for the next report.
func (r *Reporter) SetBudget(condition metav1.Condition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.budget = condition
}

// Found takes what was found on the node for the next report.
func (r *Reporter) Found(f Surroundings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.surroundings = f
}

// Outcome is what became of a sync.
type Outcome struct {
	Backend string
	Err     error

	// Known is false where the sync failed before it could look at the model. Then nothing is
	// said of policies and pods.
	Known bool

	// Selecting are the policies that select a pod of the node, as they are written now;
	// refused says why some of them are not in force as they are.
	Selecting []*policy.Policy
	Refused   map[types.UID]error

	// Concerned are the families of the addresses of the pods that each policy isolates.
	Concerned map[types.UID][]ruleset.Family

	// Damaged are the families whose rules are not those that were left.
	Damaged []ruleset.Family

	// Seen are the pods that the rules are made for: node.View.
	Seen map[types.UID]string

	// Degraded is what the node can't enforce, the gravest first.
	Degraded []Degradation
}

// Observe takes the outcome of a sync and returns how many policies failed.
func (r *Reporter) Observe(o *Outcome) (failed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.followForce(o, generations(o.Selecting, o.Refused))
	status := statusOf(o.Selecting, r.inForce, o.Refused, o.Err)
	if o.Known && o.Err == nil {
		r.pods.follow(o.Seen)
	}
	r.pods.report(status)
	status.Backend = o.Backend
	status.Conditions = append(conditionsOf(o.Err, o.Degraded), conflictOf(r.surroundings.Engines))
	if reservation := r.surroundings.reservation(); o.Err == nil && reservation != nil {
		status.Conditions[0].Message = Message(fmt.Errorf("The kernel holds the rules of all policies that select a pod of this node. %w", reservation)) //nolint:staticcheck // a sentence
	}
	for _, condition := range []metav1.Condition{r.start, r.budget} {
		if condition.Type != "" {
			status.Conditions = append(status.Conditions, condition)
		}
	}
	failed = len(o.Selecting) - int(status.PolicyCount) // status names so many of them at most
	r.Want(status)
	return failed
}

// followForce notes which policies the kernel holds. A sync that failed in one family
// leaves those in force whose pods have no address of it. One that did otherwise leaves those
// that were, unless the rules of a family are not what they were left.
func (r *Reporter) followForce(o *Outcome, present map[types.UID]int64) {
	if o.Err == nil {
		r.inForce = present
		return
	}
	broken, byFamily := kernel.BrokenFamilies(o.Err)
	for uid, families := range o.Concerned {
		holds := func(family ruleset.Family) bool { return broken[family] != nil }
		if generation, ok := present[uid]; ok && byFamily && !slices.ContainsFunc(families, holds) {
			r.inForce[uid] = generation
		}
		if slices.ContainsFunc(families, func(family ruleset.Family) bool { return slices.Contains(o.Damaged, family) }) {
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
			failed = append(failed, failedPolicy{p, RefusalReason(refused[p.UID]), refused[p.UID]})
		case known && generation == p.Generation:
			enforced = append(enforced, p)
		default:
			failed = append(failed, failedPolicy{p, ReasonOf(syncErr), syncErr})
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
		status.Failures = append(status.Failures, v1alpha1.PolicyFailure{UID: f.policy.UID, Reason: f.reason, Message: Message(f.err)})
	}
	return status
}

// failedPolicy is a policy that isn't in force as it is written now, and why.
type failedPolicy struct {
	policy *policy.Policy
	reason string
	err    error
}

// RefusalReason tells the policies that the kernel refuses from those that it isn't asked
// for.
func RefusalReason(err error) string {
	var excess *budget.Excess
	switch {
	case errors.As(err, &excess), errors.Is(err, policystore.ErrOmitted):
		return v1alpha1.NodeReasonTooExpensive
	case errors.Is(err, pacing.ErrThrottled):
		return v1alpha1.NodeReasonThrottled
	}
	return v1alpha1.NodeReasonRestoreFailed
}

func conditionsOf(syncErr error, degraded []Degradation) []metav1.Condition {
	synced := metav1.Condition{
		Type:    v1alpha1.NodeConditionDataplaneSynced,
		Status:  metav1.ConditionTrue,
		Reason:  v1alpha1.NodeReasonSynced,
		Message: "The kernel holds the rules of all policies that select a pod of this node",
	}
	if syncErr != nil {
		synced.Status, synced.Reason, synced.Message = metav1.ConditionFalse, ReasonOf(syncErr), Message(syncErr)
	}
	return []metav1.Condition{synced, DegradedCondition(degraded)}
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
		Message: Message(errors.New(text)),
	}
}

// ReasonOf returns the reason of the condition DataplaneSynced after an error of a sync.
func ReasonOf(err error) string {
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

// Message is cut between characters: the API server replaces what is no UTF-8, and
// the stored report would always differ from the wanted one.
func Message(err error) string {
	text := strings.ToValidUTF8(fmt.Sprint(err), "?")
	if len(text) > MaxMessage {
		text = strings.ToValidUTF8(text[:MaxMessage-3], "") + "..."
	}
	return text
}

// ReachAPIServer reads the node's Node from the API server, to learn why it
// doesn't answer.
func (r *Reporter) ReachAPIServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	if err := r.live.Get(ctx, client.ObjectKey{Name: r.node}, &corev1.Node{}); err != nil {
		return fmt.Errorf("getting Node %s: %w", r.node, err)
	}
	return nil
}
