package dataplane

import (
	"errors"
	"slices"
	"time"

	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// readEvery is how often the kernel is read in full although nothing seems to have
// changed: a set in which another program exchanged elements has as many as before.
const readEvery = 2 * time.Minute

// inspection tells whether the kernel is as it was left without reading all of it.
// The zero value knows nothing.
type inspection struct {
	observer *iptables.Observer

	// found is the fingerprint of the tables that were last read in full and found
	// right. It was taken before they were read: what other programs changed in the
	// meantime has another one. Rules that Moat writes leave it without a value,
	// and the next inspection asks for a full read.
	found iptables.Fingerprint

	// left are the rules that were last known to be right: as they were read, or as Moat
	// wrote them.
	left  iptables.Rules
	stale bool // Moat wrote rules since left was taken

	// readAt is when the kernel was last read in full.
	readAt time.Time

	// aroundAt is when other programs' chains were last listed.
	aroundAt time.Time
}

// begin takes the fingerprint of what is about to be read.
func (i *inspection) begin() {
	i.readAt = time.Now()
	found, err := i.look()
	if err != nil {
		found = iptables.Fingerprint{} // the next inspection asks for a full read
	}
	i.found = found
}

// look takes the present fingerprint.
func (i *inspection) look() (iptables.Fingerprint, error) {
	if i.observer == nil {
		observer, err := iptables.OpenObserver()
		if err != nil {
			return iptables.Fingerprint{}, err
		}
		i.observer = observer
	}
	return i.observer.Fingerprint(i.found)
}

// wrote notes that Moat wrote rules.
func (i *inspection) wrote() { i.found, i.stale = iptables.Fingerprint{}, true }

// wroteBeforeReading notes that Moat wrote rules of a family, which are read next: what
// other programs change in between shows at once.
func (i *inspection) wroteBeforeReading(backend iptables.Backend, family ruleset.Family) {
	if i.observer == nil || !i.left.Taken() {
		return
	}
	if now, err := i.observer.Rules(iptables.Rules{}); err == nil {
		i.proved(now, backend, family)
	}
}

// proved notes what the rules of a family are that are certainly as Moat wrote them.
func (i *inspection) proved(now iptables.Rules, backend iptables.Backend, family ruleset.Family) {
	if i.left.Taken() {
		i.left.Update(now, backend, family)
	} else {
		i.left = now
	}
	i.stale = false
}

// settle notes that a sync left the rules as they are to be. What other programs change
// between their last write and this shows when they are next read.
func (i *inspection) settle() {
	switch {
	case i.observer == nil:
	case i.found.Taken():
		i.left, i.stale = i.found.Rules, false
	case i.stale:
		left, err := i.observer.Rules(i.left)
		if err != nil {
			left = iptables.Rules{}
		}
		i.left, i.stale = left, false
	}
}

// disturbed reports whether another program wrote other rules than were left. It reads the rules
// of the mangle tables alone, and only if some nft table changed.
func (i *inspection) disturbed() (bool, error) {
	if i.observer == nil || !i.left.Taken() {
		return false, nil
	}
	now, err := i.observer.Rules(i.left)
	if err != nil {
		return false, err
	}
	same := now.Same(i.left)
	if same {
		i.left = now // has a newer generation, maybe
	}
	return !same, nil
}

func (i *inspection) close() {
	if i.observer != nil {
		i.observer.Close()
		i.observer = nil
	}
}

// glance looks for damage after the kernel told of a change, or may have. It reports
// whether a sync is due.
func (e *enforcer) glance(told time.Time) bool {
	if !e.settled { // the last sync failed, and the next one reads everything
		return false
	}
	e.metrics.Read(metrics.ReadGlance)
	start := time.Now()
	disturbed, err := e.inspection.disturbed()
	e.waker.took(time.Since(start))
	switch {
	case errors.Is(err, nfnetlink.ErrChanging):
		// Others write all the time, maybe elsewhere. Their next write is one more reason to
		// look, and the next inspection has everything read.
		return false
	case err == nil && !disturbed:
		e.right = start
		return false
	}
	e.distrust()
	if told.After(e.right) && e.backend == iptables.NFT { // no program had written until then
		e.right = told
	}
	return true
}

// inspect makes the next sync read the kernel in full if anything may be other than
// it was left. To find that nothing is starts no program.
func (e *enforcer) inspect() {
	if !e.trusted {
		return
	}
	e.metrics.Read(metrics.ReadInspection)
	start := time.Now()
	if time.Since(e.inspection.readAt) >= readEvery || !e.writes(e.families()) || !e.asLeft() {
		e.distrust()
		return
	}
	e.right = start
}

// asLeft reports whether tables, sets and links are certainly as they were left.
func (e *enforcer) asLeft() bool {
	now, err := e.inspection.look()
	if err != nil || !now.Same(e.inspection.found) {
		return false
	}
	e.inspection.found = now // has a newer generation, maybe
	return e.sizesAsLeft() && e.linksAsLeft()
}

// sizesAsLeft compares how many elements each set has.
func (e *enforcer) sizesAsLeft() bool {
	sizes, err := e.sets.Sizes()
	if err != nil || len(sizes) != len(e.sizes) {
		return false
	}
	for name, left := range e.sizes {
		size, exists := sizes[name]
		if !exists || size != left.members+len(e.isolated[name].Members) {
			return false
		}
	}
	return true
}

// linksAsLeft looks whether the routes lead to the pods by the same links.
func (e *enforcer) linksAsLeft() bool {
	links, err := host.LinksOf(e.quarantine.close(e.view.Endpoints))
	uplinks, upErr := host.UplinksOf(e.view.Guard.Foreign, e.view.Guard.Local)
	return err == nil && upErr == nil && slices.EqualFunc(links[:], e.links[:], slices.Equal) && slices.Equal(uplinks, e.uplinks)
}

// close gives up what the enforcer holds open. The kernel's rules stay.
func (e *enforcer) close() {
	e.inspection.close()
	e.waker.close()
	e.pace.Close()
	e.cutter.Close()
	if e.sets != nil {
		e.sets.Close()
		e.sets = nil
	}
	e.runners = nil
}
