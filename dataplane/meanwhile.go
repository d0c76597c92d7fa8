package dataplane

import (
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// A program of iptables may hang, or wait for the lock, for half a minute. A new pod that
// nothing isolates needs no rule, and so it doesn't wait for one.
const (
	meanwhileAfter = 500 * time.Millisecond // most programs have ended by then
	meanwhileEvery = 100 * time.Millisecond
)

// meanwhile does work in which programs run. As soon as that takes long, the sets of known
// pods follow the model beside it, as far as no rule is needed. The work must not use sets.
func (e *enforcer) meanwhile(m *node.Model, work func()) {
	d := &doorkeeper{sets: e.sets, model: m, seen: e.admitted}
	done := make(chan struct{})
	var keeping sync.WaitGroup
	keeping.Go(func() { d.keep(done) })
	work()
	close(done)
	keeping.Wait()
	e.admitted, e.overtaken = d.seen, e.overtaken || d.changed
}

// doorkeeper lets addresses into the sets of known pods, and takes them out, while the
// enforcer waits.
type doorkeeper struct {
	sets    *ipset.Kernel
	model   *node.Model
	seen    *node.View // what the sets were last brought to; nil: nothing that is known
	changed bool
}

func (d *doorkeeper) keep(done <-chan struct{}) {
	timer := time.NewTimer(meanwhileAfter)
	defer timer.Stop()
	for {
		select {
		case <-done:
			return
		case <-timer.C:
			d.follow()
			timer.Reset(meanwhileEvery)
		}
	}
}

// follow brings the sets to the present view. What fails is tried again, and it is said by the
// next sync, which fails as well.
func (d *doorkeeper) follow() {
	now := d.model.View(d.seen.At())
	if now == nil {
		return
	}
	for _, family := range ruleset.Families() {
		inside, err := d.sets.Members(compile.LocalSet(family))
		if errors.Is(err, unix.ENOENT) {
			continue // the guard isn't there
		}
		if err != nil {
			return
		}
		enter, leave := passing(family, inside, d.seen, now)
		if len(enter)+len(leave) == 0 {
			continue
		}
		d.changed = true
		if d.sets.Delete(leave) != nil || d.sets.Add(enter) != nil {
			return
		}
	}
	d.seen = now
}

// passing says who enters a family's set of known pods, and who leaves it, without any rule
// being written: pods that nothing isolates enter, and addresses leave that no pod has any
// more, or that an isolated pod has got from another one. Where nothing is known of before,
// isolated pods stay inside.
func passing(family ruleset.Family, inside ruleset.Members, before, now *node.View) (enter, leave []ipset.Change) {
	name := compile.LocalSet(family)
	had, has := occupantsOf(before), occupantsOf(now)
	for addr, occupant := range has {
		member := ruleset.Address(addr)
		if _, is := inside[member]; !is && family.Holds(addr) && !occupant.isolated {
			enter = append(enter, ipset.Change{Set: name, Type: ruleset.HashIP, Member: member})
		}
	}
	for member := range inside {
		addr := member.Prefix.Addr()
		occupant, known := has[addr]
		if !known || occupant.isolated && before != nil && !occupant.is(had[addr]) {
			leave = append(leave, ipset.Change{Set: name, Type: ruleset.HashIP, Member: member})
		}
	}
	return enter, leave
}

// overtake makes the changes of the sets of known pods agree with what these sets were
// brought to beside the present sync, which saw the model before that. What is left out is
// the next sync's to do.
func (l *localChanges) overtake(admitted, planned *node.View) {
	if admitted.At() <= planned.At() {
		return
	}
	planner, has := occupantsOf(planned), occupantsOf(admitted)
	overtaken := func(c ipset.Change) bool {
		_, isLocal := setFamily(c.Set, compile.LocalSet)
		addr := c.Member.Prefix.Addr()
		return isLocal && planner[addr] != has[addr]
	}
	for _, changes := range []*[]ipset.Change{&l.remove, &l.early, &l.late} {
		*changes = slices.DeleteFunc(*changes, overtaken)
	}
}

// occupant is the pod that has an address.
type occupant struct {
	key      types.NamespacedName
	uid      types.UID
	isolated bool
}

// is reports whether both are the same pod.
func (o occupant) is(other occupant) bool { return o.key == other.key && o.uid == other.uid }

// occupantsOf returns who has the addresses of the node's pods. A nil view has none.
func occupantsOf(v *node.View) map[netip.Addr]occupant {
	if v == nil {
		return nil
	}
	isolated := map[types.NamespacedName]bool{}
	for i := range v.Endpoints {
		isolated[v.Endpoints[i].Pod.Key()] = true
	}
	occupants := map[netip.Addr]occupant{}
	for _, pod := range v.Local {
		for _, addr := range pod.Addrs {
			occupants[addr] = occupant{pod.Key(), pod.UID, isolated[pod.Key()] || occupants[addr].isolated}
		}
	}
	return occupants
}
