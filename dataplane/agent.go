// Package dataplane is the node agent: it watches pods, namespaces and network
// policies, and makes the kernel of its node enforce every NetworkPolicy.
//
//	informers -> model -> compile -> enforcer (ipset, iptables) -> report
//
// The model holds what was seen (policy, selector), compile turns it into a
// ruleset, the enforcer writes the difference to the kernel and the reporter says
// in the node's NodeEnforcement what is in force.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/moat-dev/moat/dataplane/backoff"
	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/lastword"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/notify"
	"github.com/moat-dev/moat/dataplane/pacing"
	"github.com/moat-dev/moat/dataplane/podstart/keeper"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/watch"
)

// +kubebuilder:rbac:groups="",resources=pods;namespaces;nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch

// Timing of the sync loop.
const (
	// resyncEvery is how often the kernel is looked at, to repair what others
	// changed. Five seconds are promised until it is repaired, which takes a while too.
	resyncEvery = 3 * time.Second

	// retryFirst and retryMost bound the wait after an error, which doubles.
	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second

	// restLeast and restMost bound the rest between two syncs while changes keep
	// coming. restMembers is the least before one that only moves elements of sets: of
	// other nodes' pods there are many, and to wake for each costs more than the rest
	// of the work.
	restLeast   = 15 * time.Millisecond
	restMembers = 50 * time.Millisecond
	restMost    = 100 * time.Millisecond

	// modelPoll is how often the agent looks whether its model is complete.
	modelPoll = 50 * time.Millisecond

	// firstNotice is when the agent says first that it waits for the API server,
	// waitNotice how often it says so.
	firstNotice = 2 * time.Second
	waitNotice  = 10 * time.Second
)

// Options configure an agent.
type Options struct {
	// NodeName is the name of the agent's Node object.
	NodeName string

	// Backend is the iptables variant; empty to use the one that the node uses.
	Backend iptables.Backend

	// SysctlDir is where /proc/sys/net of the node can be written.
	SysctlDir string

	// PodStartGuard says whether pods' starts are guarded; empty: GuardOff.
	PodStartGuard keeper.Mode

	// NRISocket is the container runtime's NRI socket.
	NRISocket string

	// AntiSpoofing says what is done about forged source addresses; empty: SpoofingOff.
	AntiSpoofing AntiSpoofing

	// Namespace is the one that Moat is installed in; empty where it isn't known.
	Namespace string

	// Words are those that the watches of the agent's manager note, and Policies holds the
	// policies that they bring: ManagerOptions. Nil: nothing does.
	Words    *lastword.Words
	Policies *policystore.Store

	// Budgets say how much policies may take of the node; zero: the defaults.
	Budgets budget.Limits

	// BudgetMode says what is done about policies that take more. Empty: Enforce where
	// the release came with budgets, Report where it was upgraded to one that has them.
	BudgetMode BudgetMode
}

// Agent enforces policies on one node. It runs in the node's network namespace
// and needs CAP_NET_ADMIN there.
type Agent struct {
	options  Options
	log      logr.Logger
	model    *node.Model
	enforcer *enforcer
	reporter *report.Reporter
	live     client.Reader // of the API server, without a cache
	storage  *watch.StorageCheck
	health   *health.Checks
	starts   *keeper.Keeper
	home     home
	repairs  *notify.Repairs
	oddities *notify.Oddities
	raw      rawSockets
	informed []informer

	// event is when the first event came that is not in the kernel yet.
	event time.Time

	news *notify.NodeNews
	look nodeLook

	// complete is when the model was complete; zero once that is in the kernel.
	complete time.Time

	// said is what sayWhatIsWrong and sayWhetherCutOff said last.
	said struct {
		refused  map[types.UID]error
		engines  []string
		elements refusals
		cutOff   bool
	}
}

// informer is a watch with its name for people.
type informer struct {
	resource     string
	registration toolscache.ResourceEventHandlerRegistration
}

// Setup adds an agent to a manager and returns it. Until the context ends it says what
// the agent waits for.
func Setup(ctx context.Context, mgr manager.Manager, options Options) (*Agent, error) {
	a, err := newAgent(ctx, mgr, options)
	if err != nil {
		return nil, err
	}
	for _, collector := range []prometheus.Collector{a.enforcer.metrics, watch.NewAges(options.Words)} {
		if err := ctrlmetrics.Registry.Register(collector); err != nil {
			return nil, fmt.Errorf("registering the metrics: %w", err)
		}
	}
	// The manager starts the agent only once the caches are full.
	go a.sayWhatIsMissing(ctx)
	return a, errors.Join(
		mgr.Add(a.reporter),
		mgr.Add(a.storage),
		mgr.Add(a),
	)
}

// newAgent makes an agent that watches through the manager's cache.
func newAgent(ctx context.Context, mgr manager.Manager, options Options) (*Agent, error) {
	log := mgr.GetLogger().WithName("agent").WithValues("node", options.NodeName)
	if err := netlink.SetSocketTimeout(nfnetlink.AnswerWithin); err != nil {
		return nil, err
	}
	if options.Policies == nil {
		options.Policies = policystore.New(0)
	}
	a := &Agent{
		options:  options,
		log:      log,
		model:    node.New(options.NodeName),
		enforcer: newEnforcer(options.Backend),
		reporter: report.New(mgr.GetClient(), mgr.GetAPIReader(), options.NodeName, log),
		live:     mgr.GetAPIReader(),
		storage:  watch.NewStorageCheck(mgr.GetAPIReader(), options.NodeName),
	}
	a.home.name = options.Namespace
	a.enforcer.budgets = newBudgets(limitsOr(options.Budgets), options.BudgetMode)
	a.enforcer.budgets.memory = options.Policies.Used
	options.Policies.Changed = a.model.HoldOtherwise
	a.enforcer.sources.mode = options.AntiSpoofing
	if options.AntiSpoofing.judges() {
		a.model.JudgesSources()
	}
	a.health = &health.Checks{Unsynced: a.unsynced, CutOff: options.Words.CutOff}
	a.enforcer.progress = a.health.Begin
	a.raw.pods = a.model.WithRawSockets
	a.enforcer.metrics.AskForRawSockets(a.raw.names)
	recorder := mgr.GetEventRecorder("moat-agent")
	a.starts = keeper.New(options.PodStartGuard, a.model, recorder, log)
	a.news = notify.NewNodeNews(options.NodeName, recorder, a.enforcer.metrics, log)
	a.repairs = notify.NewRepairs(options.NodeName, recorder, log)
	a.oddities = notify.NewOddities(options.NodeName, recorder, a.enforcer.metrics, log)
	return a, a.watch(ctx, mgr.GetCache())
}

// watch registers the model with the informers. It doesn't wait for them: the
// API server may be away.
func (a *Agent) watch(ctx context.Context, informers cache.Cache) error {
	watches := []struct {
		resource string
		object   client.Object
		handler  toolscache.ResourceEventHandler
	}{
		{"pods", &watch.SlimPod{}, watch.HandlerOf(a.model.SetPod, a.model.DeletePod)},
		{"namespaces", &corev1.Namespace{}, watch.HandlerOf(a.setNamespace, a.deleteNamespace)},
		{"networkpolicies", &networkingv1.NetworkPolicy{}, a.policyHandler()},
		{"nodes", &corev1.Node{}, a.model.NodeHandler(a.reporter.SawNode)},
	}
	for _, w := range watches {
		source, err := informers.GetInformer(ctx, w.object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching %s: %w", w.resource, err)
		}
		registration, err := source.AddEventHandler(w.handler)
		if err != nil {
			return fmt.Errorf("watching %s: %w", w.resource, err)
		}
		a.informed = append(a.informed, informer{w.resource, registration})
	}
	return nil
}

// unsynced names the resources that the model doesn't hold completely yet.
func (a *Agent) unsynced() []string {
	var names []string
	for _, i := range a.informed {
		if !i.registration.HasSynced() {
			names = append(names, i.resource)
		}
	}
	return names
}

// Start runs the sync loop until the context ends. The rules stay then: a node
// without agent is as closed as it was.
func (a *Agent) Start(ctx context.Context) error {
	if !a.awaitModel(ctx) {
		return nil
	}
	a.settleBudgets(ctx)
	defer a.enforcer.cutter.Start(ctx)()
	go node.NewRangeReader(a.model, a.live, a.log).Run(ctx)
	go a.readOmitted(ctx)
	a.complete = time.Now()
	defer a.holdStarts(ctx)()
	resync := time.NewTicker(resyncEvery)
	defer resync.Stop()
	retry := backoff.New(retryFirst, retryMost)
	for {
		start := time.Now()
		if err := a.sync(ctx); err != nil && ctx.Err() == nil {
			if iptables.IsLock(err) { // waited for it already
				retry.Reset()
			}
			a.log.Error(err, "The dataplane could not be synced", "rules", a.enforcer.view.standing(), "retryIn", retry.Next().String())
		} else {
			retry.Reset()
		}
		if !a.await(ctx, start, retry, resync.C) {
			return nil
		}
	}
}

// await returns when a sync is due after the one that began at start, and reports false
// if the context ended.
func (a *Agent) await(ctx context.Context, start time.Time, retry *backoff.Backoff, resync <-chan time.Time) bool {
	synced := time.Now()
	rest := restAfter(synced.Sub(start))
	for {
		select {
		case <-ctx.Done():
			a.log.Info("Stopping to enforce; the kernel holds the rules")
			return false
		case <-a.model.Changed:
			if retry.Waiting() {
				synced, rest = time.Now(), retryFirst
			}
			return a.gather(ctx, synced, rest)
		case told := <-a.enforcer.waker.woken:
			if a.enforcer.glance(told) {
				return true
			}
		case <-retry.Due():
			return true
		case <-resync:
			a.enforcer.inspect()
			return true
		}
	}
}

// restAfter is how long changes are gathered after a sync that took so long: a burst
// costs a few syncs and half of the time at most, and a change after quiet waits for
// nothing.
func restAfter(took time.Duration) time.Duration { return min(max(took, restLeast), restMost) }

// gather lets further changes come until the rest since the last sync is over, and
// reports false if the context ended. A sync that begins afterwards sees them all.
func (a *Agent) gather(ctx context.Context, synced time.Time, rest time.Duration) bool {
	for {
		end := synced.Add(rest)
		if a.enforcer.upToDate(a.model) {
			end = synced.Add(max(rest, restMembers))
		}
		wait := time.Until(end)
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		case <-a.model.Changed: // perhaps one that can't wait as long
			timer.Stop()
		}
	}
}

// holdStarts begins to hold the starts of pods and returns what ends it. The guard
// stands from the first sync on if it stood before, and comes once the runtime has
// said which pods it has.
func (a *Agent) holdStarts(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { a.starts.Run(ctx, a.options.NRISocket) })
	a.starts.AwaitRuntime(ctx)
	if a.starts.Guards() {
		a.keepRanges(ctx)
	}
	switch a.options.PodStartGuard {
	case keeper.GuardAlways:
		a.model.GuardFromNowOn()
	case keeper.GuardAuto:
		if a.enforcer.findsGuard() {
			a.starts.KeepGuard()
		}
	case keeper.GuardOff:
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// NeedLeaderElection is false: every node has its agent.
func (a *Agent) NeedLeaderElection() bool { return false }

// awaitModel waits until the model holds what the API server holds. Until then
// nothing is written to the kernel: a model with half of the policies would open
// pods.
func (a *Agent) awaitModel(ctx context.Context) bool {
	for len(a.unsynced()) > 0 {
		if !backoff.Sleep(ctx, modelPoll) {
			return false
		}
	}
	return true
}

// sayWhatIsMissing logs what the model still lacks, and why, and tells the
// readiness check. The informers themselves retry in silence.
func (a *Agent) sayWhatIsMissing(ctx context.Context) {
	for backoff.Sleep(ctx, firstNotice) && len(a.unsynced()) > 0 {
		err := a.reporter.ReachAPIServer(ctx)
		if err == nil {
			err = a.storage.Check(ctx)
		}
		a.health.Waiting(err)
		a.log.Info("Waiting for the API server; the kernel's rules are left as they are", "missing", a.unsynced(), "error", err)
		if !backoff.Sleep(ctx, waitNotice-firstNotice) {
			return
		}
	}
}

// sync makes one pass and tells the health checks and the reporter about it.
func (a *Agent) sync(ctx context.Context) error {
	a.health.Begin()
	start, before := time.Now(), a.enforcer.backend
	if event := a.model.TakeEvent(); a.event.IsZero() {
		a.event = event
	}
	err := a.enforcer.sync(ctx, a.model)
	if now := a.enforcer.backend; before != "" && now != before {
		a.log.Info("The node changed its iptables backend, and the rules moved", "from", before, "to", now)
	}
	degraded := a.degradations(start)
	a.sayWhetherCutOff()
	if a.health.End(err) {
		a.log.Info("The kernel holds the rules of all policies", "backend", a.enforcer.backend, "policies", len(a.enforcer.view.Selecting))
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err == nil {
		a.starts.Synced(a.enforcer.view.Revision)
		if what, gap := a.enforcer.repaired(time.Now()); what != nil {
			a.repairs.Tell(what[metrics.RepairChain], what[metrics.RepairHook], what[metrics.RepairSet], gap)
		}
	}
	// Where only elements of sets moved, the report and the sizes are what they were.
	podStart := a.starts.Condition()
	a.enforcer.metrics.Unguarded(keeper.IsUnguarded(&podStart))
	newBudget := a.tellBudget()
	if newStart := a.reporter.SetPodStart(podStart); a.news.Tell(degraded) || newBudget || newStart || !a.enforcer.same || err != nil {
		a.sayWhatIsWrong()
		a.oddities.Tell(a.model.OddPods())
		a.reporter.Found(a.enforcer.surroundings())
		failed := a.reporter.Observe(outcomeOf(a.enforcer.backend, a.enforcer.view, err, degraded))
		a.enforcer.metrics.Show(a.enforcer.snapshot(failed))
		if a.enforcer.view != nil {
			a.raw.follow(a.enforcer.view.Endpoints)
		}
	}
	a.sayRefused()
	a.enforcer.metrics.Synced(start, a.event, err)
	if err == nil {
		a.enforcer.metrics.SyncedFirst(a.complete)
		a.event, a.complete = time.Time{}, time.Time{}
	}
	a.log.V(1).Info("Synced", "duration", time.Since(start).String(), "error", err != nil)
	return err
}

// sayWhatIsWrong logs which policies came to quarantine and which other engines were
// found or have gone, once each.
func (a *Agent) sayWhatIsWrong() {
	v, engines := a.enforcer.view, a.enforcer.engines
	if v != nil {
		for _, p := range v.Selecting {
			if err := v.refused[p.UID]; err != nil && a.said.refused[p.UID] == nil && !errors.Is(err, pacing.ErrThrottled) {
				a.log.Error(err, "The rules of a policy can't be in the kernel, and the pods that it selects are closed",
					"reason", report.RefusalReason(err), "policy", p.Namespace+"/"+p.Name, "generation", p.Generation)
			}
		}
		a.said.refused = v.refused
	}
	if !slices.Equal(engines, a.said.engines) {
		a.said.engines = engines
		a.log.Info("Other engines of NetworkPolicy on this node", "found", engines)
	}
}
