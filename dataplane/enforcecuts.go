package dataplane

import (
	"maps"
	"time"

	"github.com/moat-dev/moat/dataplane/flows"
	"github.com/moat-dev/moat/dataplane/node"
)

// followCuts brings what is cut up to date with the model and with the last look.
// It reports whether rules are needed that weren't, or the other way round.
func (e *enforcer) followCuts(m *node.Model) (bool, error) {
	if err := e.cutter.Open(); err != nil {
		return false, err
	}
	if e.cuts == nil {
		have, err := e.sets.Read()
		if err != nil {
			return false, err
		}
		e.listed = have // for planSets
		e.cuts = flows.Adopt(have, e.cutter.ClientPorts(), time.Now())
	}
	now := time.Now()
	e.metrics.Cut(e.cuts.Follow(e.cutter.Take(), m, e.enforced(), now))
	changed := false
	for i := range e.outputs {
		output := &e.outputs[i]
		members := e.cuts.Members(output.Ruleset.Family, e.links, now)
		for cause, cut := range output.Cuts {
			changed = changed || (members[cause] == nil) != (cut == nil)
			e.recompiled = e.recompiled || !maps.Equal(members[cause], cut)
		}
		output.Cuts = members
	}
	return changed, nil
}

// enforced is the view as connections are judged by it: the pods are closed that
// policies in quarantine isolate, and the links that lead to them, once these were
// found to be at fault.
func (e *enforcer) enforced() *flows.Enforced {
	faulty := e.quarantine.faulty()
	if len(faulty) == len(e.quarantine) {
		e.judged = e.links
	}
	return &flows.Enforced{Endpoints: faulty.close(e.view.Endpoints), Gone: e.view.Gone, Links: e.judged}
}

// lookForCuts asks for looks at the table of connections where connections may have
// become forbidden: the kernel is stricter than it was, or a pod is gone.
func (e *enforcer) lookForCuts(m *node.Model) {
	enforced := e.enforced()
	e.cutter.Watch(len(e.cuts.Classes) > 0, enforced, e.cuts.CutPickedUp())
	if released := m.TakeReleased(); e.stricter || len(released) > 0 {
		e.cutter.Request(m, enforced, released)
	}
	if e.hooked {
		e.cutter.Resume(e.begun)
	}
	e.stricter, e.hooked = false, false
}
