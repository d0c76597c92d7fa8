package dataplane

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// spoofing names the pods that were seen to send forged packets, by the counters of their
// links. No pod is named for another one's packets: what was counted before it was known
// whose link it was is no pod's.
type spoofing struct {
	last map[ruleset.Family]map[string]linkCount // by the names of links, as of the last read
	pods map[string]types.NamespacedName         // by the ids of their sandboxes
	seen map[string]bool                         // sandboxes
}

// linkCount is how many packets were forged by the link of a sandbox.
type linkCount struct {
	sandbox string
	packets uint64
}

func newSpoofing() spoofing {
	return spoofing{last: map[ruleset.Family]map[string]linkCount{}, pods: map[string]types.NamespacedName{}, seen: map[string]bool{}}
}

// keep takes the sandboxes that run and forgets all others.
func (s *spoofing) keep(running []podstart.Sandbox) {
	seen := map[string]bool{}
	clear(s.pods)
	for i := range running {
		id := running[i].ID
		s.pods[id] = running[i].Key()
		if s.seen[id] {
			seen[id] = true
		}
	}
	s.seen = seen
}

// read takes the counters of a family, by the names of links, and which sandbox has which link.
func (s *spoofing) read(family ruleset.Family, counters map[string]uint64, links map[string]compile.PodLink) {
	now := map[string]linkCount{}
	for id, link := range links {
		before, known := s.last[family][link.Name]
		packets := counters[link.Name]
		// Fewer than before: the chain was rewritten since.
		more := packets > before.packets || packets < before.packets && packets > 0
		if known && before.sandbox == id && more {
			s.seen[id] = true
		}
		now[link.Name] = linkCount{id, packets}
	}
	s.last[family] = now
}

// names returns the pods that were seen.
func (s *spoofing) names() map[types.NamespacedName]bool {
	names := map[types.NamespacedName]bool{}
	for id := range s.seen {
		names[s.pods[id]] = true
	}
	return names
}
