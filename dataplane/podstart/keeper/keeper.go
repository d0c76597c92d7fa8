package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/notify"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/report"
)

// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Mode says whether addresses of the node's pods are closed until the
// agent has programmed them, and the pods' starts held until then.
type Mode string

// The values of PodStartGuard. The zero value is GuardOff.
const (
	// GuardAuto guards from the first time on that the container runtime's NRI is
	// connected, unless the runtime tells no addresses of pods.
	GuardAuto Mode = "Auto"

	// GuardAlways guards from the start, with NRI or without.
	GuardAlways Mode = "Always"

	// GuardOff neither guards nor holds.
	GuardOff Mode = "Off"
)

// Bounds of a held start, within those of the runtime.
const (
	// knownWithin is how long a start waits for the API to show the pod before the
	// runtime's word goes.
	knownWithin = time.Second

	// stalledWait is how long a start is held after one that was held too long,
	// until a sync succeeds: a runtime holds all pods' starts one after the other.
	stalledWait = 100 * time.Millisecond

	// settleWithin bounds how long the first sync waits for the runtime to say
	// which pods it has.
	settleWithin = 2 * time.Second
)

var errNotAsked = errors.New("the container runtime's NRI was not asked yet")

// Keeper holds the starts of pods until a sync has programmed them. It implements
// podstart.Keeper and is safe for concurrent use.
type Keeper struct {
	mode   Mode
	model  *node.Model
	log    logr.Logger
	events events.EventRecorder
	limit  flowcontrol.RateLimiter

	settled chan struct{} // closed once the runtime was asked for the first time
	once    sync.Once

	mu        sync.Mutex
	connected bool
	reason    error         // why not connected
	reached   uint64        // the model's revision that the kernel holds
	stalled   bool          // a start was held too long since the last good sync
	advanced  chan struct{} // closed with the next good sync
}

// New returns the keeper of a node. Without a recorder it writes no events.
func New(mode Mode, m *node.Model, recorder events.EventRecorder, log logr.Logger) *Keeper {
	return &Keeper{
		mode: mode, model: m, log: log, events: recorder,
		limit:    notify.NewLimit(),
		settled:  make(chan struct{}),
		advanced: make(chan struct{}),
	}
}

// Run keeps the runtime connected until the context ends.
func (s *Keeper) Run(ctx context.Context, socket string) {
	if s.Guards() {
		podstart.New(socket, s, s.log).Run(ctx)
	}
}

// Guards reports whether the mode guards at all.
func (s *Keeper) Guards() bool { return s.mode == GuardAuto || s.mode == GuardAlways }

// AwaitRuntime waits until the runtime has said which pods it has, or can't be
// asked, before the guard comes.
func (s *Keeper) AwaitRuntime(ctx context.Context) {
	if !s.Guards() {
		return
	}
	select {
	case <-s.settled:
	case <-ctx.Done():
	case <-time.After(settleWithin):
	}
}

// Replace implements podstart.Keeper.
func (s *Keeper) Replace(running []podstart.Sandbox) { s.model.ReplaceSandboxes(running) }

// Connection implements podstart.Keeper.
func (s *Keeper) Connection(err error) {
	s.mu.Lock()
	changed := s.connected != (err == nil) || s.reason == nil && err != nil || isSilent(s.reason) != isSilent(err)
	s.connected, s.reason = err == nil, err
	if err != nil {
		s.model.RuntimeLost()
	}
	switch {
	case err == nil && s.Guards():
		s.model.GuardFromNowOn()
	case s.mode == GuardAuto && isSilent(err):
		s.model.GuardNoMore()
	}
	s.mu.Unlock()
	s.once.Do(func() { close(s.settled) })
	if !changed {
		return
	}
	s.model.Poke() // to report it
	if err != nil {
		s.log.Info("The container runtime doesn't hold the starts of pods", "reason", err.Error())
	} else {
		s.log.Info("The container runtime holds the starts of pods until their rules are in force")
	}
}

// isSilent reports whether an error of Connection says that the runtime is there and
// tells no addresses of pods.
func isSilent(err error) bool {
	var silent *podstart.SilentError
	return errors.As(err, &silent)
}

// KeepGuard keeps a guard that an agent before this one has left, whether or not the
// runtime answers. Where it answers without addresses, Auto guards no more: each new
// pod would be closed for seconds.
func (s *Keeper) KeepGuard() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !isSilent(s.reason) {
		s.model.GuardFromNowOn()
	}
}

// Start implements podstart.Keeper. A pod that the API doesn't show in time is
// programmed by what the runtime says of it.
func (s *Keeper) Start(ctx context.Context, sandbox podstart.Sandbox) {
	begun := time.Now()
	s.model.StartSandbox(sandbox)
	ctx, cancel := s.patience(ctx)
	defer cancel()
	s.await(ctx, func() bool {
		_, known := s.model.SandboxState(&sandbox)
		return known || time.Since(begun) > knownWithin
	})
	revision, known := s.model.SandboxState(&sandbox)
	if s.await(ctx, func() bool { return s.holds(revision) }) {
		s.log.V(1).Info("A pod starts with its rules in force", "pod", sandbox.Key(), "held", time.Since(begun).String(), "known", known)
		return
	}
	s.mu.Lock()
	s.stalled = true
	s.mu.Unlock()
	s.tell(&sandbox, time.Since(begun))
}

// Stop implements podstart.Keeper.
func (s *Keeper) Stop(ctx context.Context, sandbox podstart.Sandbox) {
	s.model.StopSandbox(sandbox)
	revision, _ := s.model.SandboxState(&sandbox)
	ctx, cancel := s.patience(ctx)
	defer cancel()
	s.await(ctx, func() bool { return s.holds(revision) })
}

// patience shortens the wait while nothing moves.
func (s *Keeper) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stalled {
		return context.WithTimeout(ctx, stalledWait)
	}
	return context.WithCancel(ctx)
}

// await waits until the condition holds, and looks again after each good sync and
// now and then. It reports false if the context ended first.
func (s *Keeper) await(ctx context.Context, condition func() bool) bool {
	again := time.NewTicker(knownWithin / 10)
	defer again.Stop()
	for {
		s.mu.Lock()
		advanced := s.advanced
		s.mu.Unlock()
		if condition() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-advanced:
		case <-again.C:
		}
	}
}

// holds reports whether the kernel holds the model's revision.
func (s *Keeper) holds(revision uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reached >= revision
}

// Synced notes a good sync of a revision.
func (s *Keeper) Synced(revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached, s.stalled = revision, false
	close(s.advanced)
	s.advanced = make(chan struct{})
}

// tell says that a pod was started before it was programmed.
func (s *Keeper) tell(sandbox *podstart.Sandbox, held time.Duration) {
	on, _ := s.model.Guarded()
	s.log.Info("A pod starts before its rules are in force", "pod", sandbox.Key(), "held", held.String(), "closed", on)
	if s.events == nil || !s.limit.TryAccept() {
		return
	}
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: sandbox.Namespace, Name: sandbox.Name, UID: sandbox.UID},
	}
	s.events.Eventf(pod, notify.Speaker(s.model.Node()), corev1.EventTypeWarning, v1alpha1.EventReasonPodNotProgrammed, "HoldStart",
		"The rules of this pod were not in force within %s. The pod starts all the same; "+
			"its addresses stay closed until they are.", held.Round(time.Millisecond))
}

// IsUnguarded reports whether new pods are open although they shouldn't be, by the condition
// PodStartGuarded.
func IsUnguarded(c *metav1.Condition) bool {
	return c.Status == metav1.ConditionFalse && c.Reason != v1alpha1.NodeReasonOff
}

// Condition says whether pods' starts are guarded.
func (s *Keeper) Condition() metav1.Condition {
	on, cidrs := s.model.Guarded()
	spares, outside := s.model.SparesForeign(), s.model.OutsideRanges()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := metav1.Condition{Type: v1alpha1.NodeConditionPodStartGuarded, Status: metav1.ConditionFalse}
	switch {
	case !s.Guards():
		c.Reason, c.Message = v1alpha1.NodeReasonOff, "A pod is open from its start until its rules are in force: podStartGuard is Off"
	case on && len(cidrs) == 0:
		c.Reason, c.Message = v1alpha1.NodeReasonNoPodCIDRs, "The Node has no podCIDRs, so it isn't known which addresses to close"
	case on && outside != "":
		c.Reason = v1alpha1.NodeReasonPodsOutsidePodCIDRs
		c.Message = report.Message(errors.New(outside + ". The guard doesn't close such an address before the pod's rules are in force"))
	case on && s.connected:
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.NodeReasonRuntimeConnected
		c.Message = "The container runtime holds each pod's start until the pod's rules are in force"
	case on:
		c.Status, c.Reason = metav1.ConditionTrue, v1alpha1.NodeReasonGuardOnly
		c.Message = report.Message(fmt.Errorf("a new pod's address is closed until the API shows it: %w", s.why()))
	case isSilent(s.reason):
		c.Reason = v1alpha1.NodeReasonRuntimeTellsNoAddresses
		c.Message = report.Message(fmt.Errorf("a pod is open from its start until its rules are in force: %w", s.why()))
	default:
		c.Reason = v1alpha1.NodeReasonNRIUnavailable
		c.Message = report.Message(fmt.Errorf("a pod is open from its start until its rules are in force: %w", s.why()))
	}
	if spares && c.Status == metav1.ConditionTrue {
		c.Message = report.Message(errors.New(sharedCIDRs + c.Message))
	}
	return c
}

// sharedCIDRs begins the message of a condition on a node whose guard spares addresses.
const sharedCIDRs = "Pods of other nodes have addresses of this Node's podCIDRs and pass the guard until a pod of this node has them. "

// why returns why the runtime isn't connected.
func (s *Keeper) why() error {
	if s.reason == nil {
		return errNotAsked
	}
	return s.reason
}
