package dataplane

import (
	"slices"
	"time"

	"github.com/moat-dev/moat/dataplane/iptables"
)

// readEvery is how often the kernel is read in full although nothing seems to have
// changed: a set of which somebody exchanged elements has as many as before.
const readEvery = 2 * time.Minute

// inspection tells whether the kernel is as it was left without reading all of it.
// The zero value knows nothing.
type inspection struct {
	observer *iptables.Observer

	// found is the fingerprint of the tables that were last read in full and found
	// right. It was taken before they were read: what somebody changed in the
	// meantime has another one. Rules that Moat writes leave it without a value,
	// and the next inspection asks for a full read.
	found iptables.Fingerprint

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
func (i *inspection) wrote() { i.found = iptables.Fingerprint{} }

func (i *inspection) close() {
	if i.observer != nil {
		i.observer.Close()
		i.observer = nil
	}
}

// inspect makes the next sync read the kernel in full if anything may be other than
// it was left. To find that nothing is starts no program.
func (e *enforcer) inspect() {
	if !e.trusted {
		return
	}
	e.metrics.reads.WithLabelValues(readInspection).Inc()
	if time.Since(e.inspection.readAt) >= readEvery || !e.asLeft() {
		e.distrust()
	}
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
	links, err := linksOf(e.quarantine.close(e.view.endpoints))
	uplinks, upErr := uplinksOf(e.view.guard.Foreign, e.view.guard.Local)
	return err == nil && upErr == nil && slices.EqualFunc(links[:], e.links[:], slices.Equal) && slices.Equal(uplinks, e.uplinks)
}

// close gives up what the enforcer holds open. The kernel's rules stay.
func (e *enforcer) close() {
	e.inspection.close()
	e.cutter.close()
	if e.sets != nil {
		e.sets.Close()
		e.sets = nil
	}
}
