package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/flows"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/pacing"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/dataplane/selector"
)

// enforcer brings the kernel of one network namespace to what the model asks
// for. It remembers what it wrote, so that a small change stays small; while
// that memory may be wrong (at the start, after an error, now and then) it reads
// the kernel first.
//
// Order of writes, and why no step opens anything, with old rules or new:
//  1. Sets are made and elements added: at worst the old rules allow what the new
//     state allows too.
//  2. Addresses that are no known pod's any more leave the sets of known pods: the
//     guard closes them. Pods that are isolated no longer leave the isolated sets:
//     they are open in the new state. Addresses of new pods that nothing isolates
//     enter the sets of known pods: they have no rules that could be missing.
//  3. The rules change, all of a family at once. A pod that is isolated but that
//     the rules don't know is dropped at its leaf. Then rules go that were left in
//     the other backend: what they and these allow passed until now.
//  4. Pods that are newly isolated enter the isolated sets, even after an error:
//     such a pod is closed rather than open. Without an error, addresses of newly
//     known pods enter the sets of known pods: until then the guard closes them.
//  5. Elements leave the sets, and sets that no rule names go.
type enforcer struct {
	requested iptables.Backend // empty: detect
	backend   iptables.Backend
	families  func() []ruleset.Family // that the kernel has now
	runners   map[ruleset.Family]*iptables.Runner
	others    map[ruleset.Family]*iptables.Runner // of the other backend, which Moat has yet to leave
	sets      *ipset.Kernel
	metrics   *metrics.Metrics

	view       *view
	links      compile.Links
	ways       host.Ways
	tunnels    compile.Tunnels
	uplinks    []string      // lead to other nodes' pods
	broadcasts []netip.Addr  // of the node's networks on links
	judged     compile.Links // those by which connections are judged
	outputs    []compile.Output
	desired    map[ruleset.Family]iptables.Table // the rules of outputs, rendered

	// trusted says that the following is what the kernel holds.
	trusted  bool
	known    ipset.State // names and types
	listed   ipset.State // all sets, where the present sync has read them; nil where it hasn't
	isolated ipset.State // with members
	tables   map[ruleset.Family]iptables.Table
	sizes    sizes
	refusals refusals

	// recompiled says that outputs are not in the kernel yet. same says that in the
	// present sync nothing but elements of sets can differ, so that it costs what the
	// model's change costs and nothing else is looked at.
	recompiled bool
	same       bool

	// settled says that the kernel was left like this, so that whatever is read
	// back otherwise is another program's doing.
	settled bool

	// admitted is what the sets of known pods were last brought to; nil where that is unknown.
	admitted *node.View

	// overtaken says that sets of known pods followed the model beside the present sync,
	// so that they aren't what it planned.
	overtaken bool

	// held are the names that the kernel may hold, and clashes why policies lack one.
	held    map[ruleset.Family]compile.Names
	clashes map[types.UID]error

	cutter   *flows.Scanner
	cuts     *flows.Cuts
	stricter bool // something was written that may forbid what was allowed
	hooked   bool // hooks were written that were missing

	// unread says of each family whose table iptables can't print why. broken says why
	// the rules of a family are not in force although the sync went on.
	unread kernel.FamilyErrors
	broken kernel.FamilyErrors

	sources    sources
	extensions extensions
	inspection inspection
	damage     damage    // what others did and is not repaired yet
	right      time.Time // when all was last known to be right
	waker      *waker
	quarantine quarantine
	attempts
	budgets *budgets
	pace    pacing.Pace
	engines []string // other engines of NetworkPolicy on the node
	strays  []stray

	progress func() // is told of each pass of a sync but the first
}

func newEnforcer(requested iptables.Backend) *enforcer {
	m := newMetrics()
	return &enforcer{
		requested: requested, metrics: m, cutter: flows.NewScanner(m), stricter: true, progress: func() {},
		damage: damage{}, waker: newWaker(), held: map[ruleset.Family]compile.Names{}, attempts: newAttempts(), families: host.Families,
		budgets: newBudgets(budget.Defaults(), BudgetEnforce), sources: newSources(), pace: pacing.New(),
	}
}

// distrust makes the next sync read the kernel first.
func (e *enforcer) distrust() { e.trusted = false }

// sync makes the kernel hold what the model asks for. After an error the kernel
// holds the last good rules, newly isolated pods are closed, and the next sync
// starts by reading the kernel.
func (e *enforcer) sync(ctx context.Context, m *node.Model) error {
	e.begun = time.Now()
	err := e.standing(kernel.ExplainModule(e.findFaults(ctx, m, e.pass(ctx, m))))
	if err == nil {
		e.last = inForce{e.view, e.quarantine}
	}
	if e.view != nil {
		e.view.refused = e.quarantine.reasons()
		maps.Copy(e.view.refused, e.clashes)
		maps.Copy(e.view.refused, e.view.expensive)
		maps.Copy(e.view.refused, e.pace.Reasons())
	}
	if err == nil && e.trusted {
		e.inspection.settle()
	}
	if iptables.IsPermission(err) || ipset.IsPermission(err) {
		return fmt.Errorf("the agent may not change the packet filter: "+
			"give its container the capability NET_ADMIN and the node's network (hostNetwork): %w", err)
	}
	return err
}

func (e *enforcer) pass(ctx context.Context, m *node.Model) error {
	var barErr error
	if !e.trusted {
		var own map[netip.Addr]struct{}
		if own, barErr = host.LocalAddresses(); barErr == nil { // otherwise those stay that were known
			m.BarOwnAddresses(own)
		}
	}
	askErr := m.AskNetwork()
	if e.look(m) {
		e.quarantine.keep(e.view.Selecting)
		e.holdDebtors(e.begun)
		e.outputs = nil
	}
	err := e.bring(ctx, m)
	e.trusted = e.trusted && barErr == nil
	return errors.Join(err, barErr, askErr)
}

// bring makes the kernel hold what was last seen of the model. Where outputs is nil
// they are compiled again.
func (e *enforcer) bring(ctx context.Context, m *node.Model) error {
	e.broken, e.overtaken, e.listed = kernel.FamilyErrors{}, false, nil
	if !e.trusted {
		e.inspection.begin()
		e.lookAround()
		e.metrics.Read(metrics.ReadFull)
	}
	if err := e.openAll(ctx, m); err != nil {
		return err
	}
	sourcesErr := e.followSources(m)
	e.meanwhile(m, func() { e.probe(ctx) })
	moved, linksErr := e.followLinks()
	linksErr = errors.Join(linksErr, sourcesErr)
	toggled, err := e.followCuts(m)
	if err != nil {
		return err
	}
	if moved || toggled || e.outputs == nil {
		e.compile()
	}
	plan, err := e.planSets(m)
	if err != nil {
		return err
	}
	if !e.trusted {
		e.meanwhile(m, func() { e.readTables(ctx) })
	}
	apply := e.applier()
	e.trusted, e.settled = false, false
	busy, err := e.write(&plan, func() { e.meanwhile(m, func() { e.restore(ctx, apply) }) })
	e.lookForCuts(m)
	if err != nil {
		return err
	}
	// A set that could not go yet keeps members that no later plan takes out.
	e.trusted, e.settled = !busy && linksErr == nil && !e.overtaken, !e.overtaken
	return linksErr
}

// openAll opens what a sync works with.
func (e *enforcer) openAll(ctx context.Context, m *node.Model) error {
	err := e.openSets()
	if err == nil {
		e.meanwhile(m, func() { err = e.open(ctx) })
	}
	return err
}

// upToDate reports whether nothing that the rules depend on has changed since they
// were last looked at.
func (e *enforcer) upToDate(m *node.Model) bool {
	return e.view != nil && e.view.Revision == m.Present()
}

// look renews the view and reports whether it changed.
func (e *enforcer) look(m *node.Model) bool {
	since := uint64(0)
	if e.view != nil {
		since = e.view.Revision
	}
	now := m.View(since)
	if now != nil {
		v := &view{View: *now}
		e.paceView(v, m)
		e.budgets.closeExpensive(v, m)
		e.view = v
	}
	return now != nil
}

// paceView has the view enforce the policies whose turn it is.
func (e *enforcer) paceView(v *view, m *node.Model) {
	work := func(p *policy.Policy) time.Duration { return e.budgets.work(v, p, m) }
	var enforced []*policy.Policy
	if enforced, v.waiting = e.pace.Follow(v.Policies, v.Local, work, e.begun); len(v.waiting) > 0 {
		v.View = v.With(enforced)
		v.Selecting = slices.DeleteFunc(v.Selecting, pacing.StandsIn)
	}
	e.pace.GoOn(m.Renew, e.begun)
}

// followLinks looks where the isolated pods and those of other nodes are and reports
// whether the links differ, unless nothing says that they may. Those that can't be found for
// an error stay as they were.
func (e *enforcer) followLinks() (bool, error) {
	if e.outputs != nil && e.trusted {
		return false, nil
	}
	links, err := host.LinksOf(e.quarantine.close(e.view.Endpoints))
	if err != nil {
		links = host.JoinLinks(e.links, links)
	}
	uplinks, upErr := host.UplinksOf(e.view.Guard.Foreign, e.view.Guard.Local)
	if upErr != nil {
		uplinks = e.uplinks
	}
	differ, broadcastsErr := e.followBroadcasts(links)
	before := e.ways.Known
	tunnels, tunnelsErr := e.tunnels, error(nil)
	if !e.trusted {
		e.ways.Forget()
		tunnels, tunnelsErr = host.TunnelsOf(e.tunnels)
	}
	waysErr := e.ways.Follow(e.view.Addrs())
	same := host.SameTunnels(tunnels, e.tunnels) && slices.EqualFunc(links[:], e.links[:], slices.Equal) && slices.Equal(uplinks, e.uplinks) && maps.Equal(before, e.ways.Known)
	e.links, e.uplinks, e.tunnels = links, uplinks, tunnels
	return differ || !same, errors.Join(err, upErr, waysErr, tunnelsErr, broadcastsErr)
}

// followBroadcasts looks up the broadcast addresses of links, where these changed or all is
// read again, and reports whether they differ. With an error they stay as they were.
func (e *enforcer) followBroadcasts(links compile.Links) (bool, error) {
	if e.trusted && slices.EqualFunc(links[:], e.links[:], slices.Equal) {
		return false, nil
	}
	found, err := host.BroadcastsOf(links, e.broadcasts)
	differ := !slices.Equal(found, e.broadcasts)
	e.broadcasts = found
	return differ, err
}

// compile makes the desired state of each family from the view and the links.
func (e *enforcer) compile() {
	e.outputs, e.desired, e.recompiled, e.clashes = nil, map[ruleset.Family]iptables.Table{}, true, map[types.UID]error{}
	endpoints, guard := e.quarantine.close(e.view.Endpoints), e.view.Guard
	guard.Uplinks = e.uplinks
	for _, family := range ruleset.Families() {
		if e.runners[family] != nil {
			host := compile.Host{Lacks: e.extensions.lacks[family], Ways: e.ways.Known, Tunnels: e.tunnels, Broadcasts: e.broadcasts, Held: e.held[family]}
			output := compile.Compile(host, family, endpoints, e.links, guard)
			e.noteNames(&output)
			output.Cut(e.cuts.Members(family, e.links, time.Now()), e.links)
			output.JudgeSources(e.sources.judge(), e.extensions.lacks[family])
			e.outputs = append(e.outputs, output)
			e.desired[family] = iptables.Desired(&output.Ruleset)
		}
	}
}

// planSets tells the model which sets are wanted and works out what to do with
// them.
func (e *enforcer) planSets(m *node.Model) (ipset.Plan, error) {
	e.same = e.trusted && !e.recompiled
	var plan ipset.Plan
	if e.same {
		m.Members(func(index *selector.Index) { followMembers(&plan, e.known, index) })
		return plan, nil
	}
	if e.trusted {
		m.Members(func(index *selector.Index) {
			index.Want(wantedSets(e.outputs))
			plan = incrementalPlan(e.known, declaredSets(e.outputs), index)
		})
		return plan, nil
	}
	have := e.listed
	if have == nil {
		var err error
		if have, err = e.sets.Read(); err != nil {
			return ipset.Plan{}, err
		}
	}
	isolated := takeIsolated(have, e.outputs)
	var expected ipset.Plan
	m.Members(func(index *selector.Index) {
		index.Want(wantedSets(e.outputs))
		plan = ipset.Diff(have, fullSets(e.outputs, index))
		if e.settled {
			expected = incrementalPlan(e.known, declaredSets(e.outputs), index)
		} else {
			index.Changes(func(string, policy.Element, bool) {}) // in the plan already
		}
	})
	if e.settled {
		found := foreignSets(e.refusals.outOfPlan(&plan), e.refusals.outOfPlan(&expected), isolated, e.isolated)
		e.damage.add(damage{metrics.RepairSet: found}, e.metrics)
	}
	clear(e.refusals) // the plan tries them again
	e.isolated, e.sizes = isolated, sizesOf(have)
	return plan, nil
}

// write does the five steps that the enforcer's comment explains, of which restore is the
// third. It goes on after an error as far as going on can only close. It reports whether
// sets are left that were still in use.
func (e *enforcer) write(plan *ipset.Plan, restore func()) (bool, error) {
	e.stricter = e.stricter || len(plan.Delete) > 0
	if e.same {
		return false, e.writeMembers(plan)
	}
	wantIsolated := isolatedState(e.outputs)
	isolated := ipset.Diff(e.isolated, wantIsolated)
	local := takeLocal(&isolated, wantIsolated, e.guardStands)
	local.overtake(e.admitted, &e.view.View)
	e.stricter = e.stricter || len(isolated.Add) > 0
	errs := []error{
		e.sets.Grow(plan),
		e.sets.Delete(local.remove),
		e.sets.Delete(isolated.Delete),
		e.sets.Add(local.early),
	}
	if errors.Join(errs[1:]...) == nil && e.admitted.At() < e.view.Revision {
		e.admitted = &e.view.View
	}
	if !ipset.IsUnmade(errs[0]) { // otherwise rules would look up what isn't there
		restore()
	}
	if err := errors.Join(append(errs, e.sets.Add(isolated.Add))...); err != nil {
		return false, errors.Join(err, e.broken.OrNil(), e.sets.Delete(plan.Delete))
	}
	local.overtake(e.admitted, &e.view.View)
	if err := e.sets.Add(local.entering(e.broken)); err != nil {
		return false, errors.Join(err, e.broken.OrNil())
	}
	busy, err := e.sets.Shrink(plan)
	if err = errors.Join(err, e.broken.OrNil()); err != nil {
		return false, err
	}
	e.isolated = e.refusals.outOfSets(wantIsolated)
	e.known = declaredSets(e.outputs)
	for _, name := range busy {
		e.known[name] = ruleset.Set{Name: name}
	}
	e.sizes.follow(e.refusals.outOfPlan(plan), busy)
	e.refusals.forget(plan)
	e.budgets.sets, e.budgets.elements = len(e.sizes), e.sizes.sum(wantedSets(e.outputs))
	e.recompiled = false
	e.letNamesGo(busy)
	return len(busy) > 0, nil
}

// writeMembers does what is left of the five steps where rules and sets stay as they
// are: elements enter sets, then others leave, whatever became of the first.
func (e *enforcer) writeMembers(plan *ipset.Plan) error {
	err := errors.Join(e.sets.Grow(plan), e.sets.Delete(plan.Delete))
	if err != nil {
		return err
	}
	followed := e.refusals.outOfPlan(plan)
	e.sizes.follow(followed, nil)
	e.budgets.elements += len(followed.Add) - len(followed.Delete)
	countMoves(e.metrics, followed)
	e.refusals.forget(plan)
	return nil
}

// applier makes one change of one family.
type applier func(ctx context.Context, family ruleset.Family, change iptables.Change) error

// applier returns how this sync changes rules.
func (e *enforcer) applier() applier {
	if e.trusted && len(e.unread) == 0 {
		return e.apply
	}
	return e.applyAndReread
}

// restore brings the rules of each family up to date. What fails in one is noted in
// broken and keeps no other from its rules.
func (e *enforcer) restore(ctx context.Context, apply applier) {
	for i := range e.outputs {
		family := e.outputs[i].Ruleset.Family
		if e.broken[family] != nil {
			continue
		}
		change := iptables.Diff(e.tables[family], e.desired[family])
		if !change.Empty() {
			e.stricter = e.stricter || changesPolicies(&change)
			e.hooked = e.hooked || slices.ContainsFunc(change.Rehook, func(builtin string) bool {
				return builtin != compile.EarlyHook && len(e.tables[family].Hooks[builtin]) == 0
			})
			if err := apply(ctx, family, change); err != nil {
				e.broken[family] = err
				continue
			}
			e.tables[family] = e.desired[family]
		}
		if err := e.leaveOther(ctx, family); err != nil {
			e.broken[family] = err
		}
	}
	if len(e.broken) == 0 {
		e.leaveStrays(ctx)
	}
}

func (e *enforcer) apply(ctx context.Context, family ruleset.Family, change iptables.Change) error {
	defer func(begun time.Time) { e.slowest = max(e.slowest, time.Since(begun)) }(time.Now())
	if e.unread[family] != nil {
		if err := e.runners[family].ApplyUnread(ctx, change, e.inspection.observer); err != nil {
			return err
		}
		return e.proveUnread(ctx, family)
	}
	return e.runners[family].Apply(ctx, change)
}

// applyAndReread is for a table that was just read: it reads it again. Rules
// that don't read back as they were written would be repaired without end, and no one
// could say what they do.
func (e *enforcer) applyAndReread(ctx context.Context, family ruleset.Family, change iptables.Change) error {
	if err := e.apply(ctx, family, change); err != nil {
		return err
	}
	if e.unread[family] != nil {
		return nil
	}
	e.inspection.wroteBeforeReading(e.backend, family)
	table, err := e.runners[family].Read(ctx)
	if err != nil {
		return err
	}
	if rest := change.Missing(table); !rest.Empty() {
		return fmt.Errorf("reading back the mangle table: %s differ from what was written", rest)
	}
	return nil
}
