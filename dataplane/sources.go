package dataplane

import (
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// AntiSpoofing says what is done about packets that a pod sends with a source address that
// isn't its own. The container runtime says which pod is behind which link, so nothing is
// done where its NRI isn't connected.
type AntiSpoofing string

// The values of AntiSpoofing. The zero value is SpoofingOff.
const (
	SpoofingOff   AntiSpoofing = "Off"
	SpoofingCount AntiSpoofing = "Count"
	SpoofingDrop  AntiSpoofing = "Drop"
)

// judges reports whether sources are looked at.
func (a AntiSpoofing) judges() bool { return a == SpoofingCount || a == SpoofingDrop }

// sourcesEvery is the least time between two changes of what rules only count by: a pod that
// nothing isolates starts and ends without a run of iptables-restore.
const sourcesEvery = time.Second

// sources are the links by which the rules judge what pods send.
type sources struct {
	mode  AntiSpoofing
	every time.Duration // sourcesEvery
	links host.PodLinks

	written  map[string]compile.PodLink // by the ids of sandboxes
	changed  time.Time                  // when written changed last
	behind   bool                       // written isn't what it should be
	unjudged int                        // pods whose packets no rule looks at
	spoofing spoofing
}

func newSources() sources {
	return sources{every: sourcesEvery, links: host.PodLinks{Open: host.OpenNetNS}, spoofing: newSpoofing()}
}

// due reports whether written is to be brought up to date although nothing else has changed.
func (s *sources) due(now time.Time) bool { return s.behind && now.Sub(s.changed) >= s.every }

// follow brings written up to date with the sandboxes of a view, and reports whether it
// changed. What is only counted by may wait, unless a link has another pod than is written.
func (s *sources) follow(v *view, now time.Time) (bool, error) {
	if !s.mode.judges() {
		return false, nil
	}
	sandboxes := make([]podstart.Sandbox, len(v.Sandboxes))
	for i := range v.Sandboxes {
		sandboxes[i] = v.Sandboxes[i].Sandbox
	}
	s.spoofing.keep(sandboxes)
	want, err := s.links.Follow(sandboxes)
	if want == nil {
		return false, err
	}
	judged := map[types.NamespacedName]bool{}
	for i := range v.Sandboxes {
		sandbox := &v.Sandboxes[i]
		link, found := want[sandbox.ID]
		if !found {
			continue
		}
		link.Exempt = sandbox.Exempt
		want[sandbox.ID] = link
		judged[sandbox.Key()] = true
	}
	s.unjudged = 0
	for _, pod := range v.Local {
		if !judged[pod.Key()] && !v.Exempt[pod.Namespace] {
			s.unjudged++
		}
	}
	s.behind = !maps.EqualFunc(want, s.written, samePodLink)
	if !s.behind || s.mode == SpoofingCount && now.Sub(s.changed) < s.every && !contradicts(want, s.written) {
		return false, err
	}
	s.written, s.changed, s.behind = want, now, false
	return true, err
}

// contradicts reports whether a link is another sandbox's than was written: the new pod's own
// packets would be taken for forged.
func contradicts(want, written map[string]compile.PodLink) bool {
	owners := map[string]string{}
	for id, link := range written {
		owners[link.Name] = id
	}
	for id, link := range want {
		if owner, known := owners[link.Name]; known && (owner != id || !samePodLink(link, written[id])) {
			return true
		}
	}
	return false
}

func samePodLink(a, b compile.PodLink) bool {
	return a.Name == b.Name && a.Bridge == b.Bridge && a.Exempt == b.Exempt && slices.Equal(a.Addrs, b.Addrs)
}

// bridged reports whether a link is a port of a bridge.
func (s *sources) bridged() bool {
	for _, link := range s.written {
		if link.Bridge != "" {
			return true
		}
	}
	return false
}

// judge returns what the rules judge.
func (s *sources) judge() compile.Sources {
	judged := compile.Sources{Links: slices.Collect(maps.Values(s.written)), Forged: ruleset.Return}
	if s.mode == SpoofingDrop {
		judged.Forged = ruleset.Drop
	}
	return judged
}

// changesPolicies reports whether a change is about more than sources. Otherwise what policies
// allow is what it was, so no connection has become forbidden.
func changesPolicies(change *iptables.Change) bool {
	touched := slices.Concat(change.Write, change.Delete)
	return len(change.Rehook) > 0 || slices.ContainsFunc(touched, func(chain string) bool { return !compile.IsSourceChain(chain) })
}

// followSources looks which link each pod has, where that may have changed.
func (e *enforcer) followSources(m *node.Model) error {
	now := time.Now()
	if e.outputs != nil && e.trusted && !e.sources.due(now) {
		return nil
	}
	if !e.trusted {
		e.sources.links.Forget()
	}
	changed, err := e.sources.follow(e.view, now)
	if changed {
		e.outputs, e.extensions.ports = nil, e.sources.bridged()
	}
	if e.sources.behind {
		time.AfterFunc(e.sources.every, m.Poke)
	}
	return err
}
