package pacing

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// paced is a node with a pod in each of two namespaces, a and b. The policies of a are
// changed in large steps.
type paced struct {
	t        *testing.T
	pace     Pace
	now      time.Time
	pods     []*policy.Pod
	policies map[types.NamespacedName]*policy.Policy
	works    map[types.UID]time.Duration
}

func newPaced(t *testing.T) *paced {
	t.Helper()
	p := &paced{t: t, pace: New(), now: time.Unix(1000, 0), policies: map[types.NamespacedName]*policy.Policy{}, works: map[types.UID]time.Duration{}}
	for i, namespace := range []string{"a", "b"} {
		p.pods = append(p.pods, &policy.Pod{
			Namespace: namespace, Name: "pod", UID: types.UID(namespace), Labels: labels.Set{"app": namespace}, Subject: true,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})},
		})
	}
	p.look()
	return p
}

// write makes a policy of a kind of work, or its next version, which selects the given app.
func (p *paced) write(namespace, name, app string, work time.Duration) *policy.Policy {
	key := types.NamespacedName{Namespace: namespace, Name: name}
	next := &policy.Policy{Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name), Generation: 1}
	if before := p.policies[key]; before != nil {
		next.Generation = before.Generation + 1
	}
	next.Selector = labels.SelectorFromSet(labels.Set{"app": app})
	next.Isolates[policy.Ingress] = true
	next.Rules[policy.Ingress] = []policy.Rule{{AnyPeer: true, AnyPort: true}}
	p.policies[key], p.works[next.UID] = next, work
	return next
}

// looked is what is enforced.
type looked struct {
	endpoints []policy.Endpoint
	selecting []*policy.Policy
	waiting   map[types.UID]*policy.Policy
}

func (p *paced) look() *looked {
	var policies []*policy.Policy
	for _, name := range []types.NamespacedName{{Namespace: "a", Name: "x"}, {Namespace: "a", Name: "y"}, {Namespace: "a", Name: "z"}, {Namespace: "b", Name: "x"}} {
		if np := p.policies[name]; np != nil {
			policies = append(policies, np)
		}
	}
	enforced, waiting := p.pace.Follow(policies, p.pods, func(np *policy.Policy) time.Duration { return p.works[np.UID] }, p.now)
	selecting := slices.DeleteFunc(policy.Selecting(p.pods, enforced), StandsIn)
	return &looked{policy.Endpoints(p.pods, enforced), selecting, waiting}
}

// allowing are the policies that allow something to the pod of a namespace, as name and
// generation, and whether it is isolated.
func allowing(v *looked, namespace string) (names []string, isolated bool) {
	names = []string{}
	for i := range v.endpoints {
		if v.endpoints[i].Pod.Namespace != namespace {
			continue
		}
		isolated = true
		for _, p := range v.endpoints[i].Isolating[policy.Ingress] {
			if len(p.Rules[policy.Ingress]) > 0 {
				names = append(names, fmt.Sprint(p.Name, p.Generation))
			}
		}
	}
	return names, isolated
}

func (p *paced) require(v *looked, namespace string, isolated bool, want ...string) {
	p.t.Helper()
	names, is := allowing(v, namespace)
	require.Equal(p.t, append([]string{}, want...), names)
	require.Equal(p.t, isolated, is)
}

// Whoever changes large policies now and then waits for nothing, and whoever does all the
// time waits until a fifth of the time is enough for it. Other namespaces never wait.
func TestLargeChangesWait(t *testing.T) {
	p := newPaced(t)
	p.write("a", "x", "a", Free+time.Second)
	p.require(p.look(), "a", true, "x1")

	p.write("a", "x", "a", time.Second)
	p.write("b", "x", "b", time.Second)
	v := p.look()
	p.require(v, "a", true, "x1")
	p.require(v, "b", true, "x1")
	require.Equal(t, map[types.UID]error{"a/x": ErrThrottled}, p.pace.Reasons())
	require.Equal(t, int64(2), v.waiting["a/x"].Generation, "the status is about the present version")
	require.Len(t, v.waiting, 1)
	require.Equal(t, int64(1), v.selecting[0].Generation, "the kernel has the earlier one")

	p.now = p.now.Add(Share*time.Second - 1)
	p.write("a", "x", "a", time.Second)
	p.require(p.look(), "a", true, "x1")
	p.now = p.now.Add(1)
	v = p.look()
	p.require(v, "a", true, "x3")
	require.Empty(t, p.pace.Reasons())
	require.Empty(t, v.waiting)
}

// A policy that waits closes what it selects for the first time, and opens nothing.
func TestAPolicyThatWaitsOpensNothing(t *testing.T) {
	for _, elsewhere := range []bool{false, true} { // it is new, or selected another pod
		p := newPaced(t)
		if elsewhere {
			p.write("a", "x", "other", 0)
		}
		p.write("a", "y", "a", Free+time.Second)
		p.require(p.look(), "a", true, "y1")
		delete(p.policies, types.NamespacedName{Namespace: "a", Name: "y"})
		p.require(p.look(), "a", false)

		p.write("a", "x", "a", time.Second)
		v := p.look()
		p.require(v, "a", true)
		require.Empty(t, v.selecting)
		require.Len(t, v.waiting, 1)
	}
}

// What a policy selected stays closed until the version has its turn that selects it no more,
// and what is deleted and made again is new.
func TestAPolicyThatWaitsStaysInForce(t *testing.T) {
	p := newPaced(t)
	p.write("a", "x", "a", Free+time.Second)
	p.require(p.look(), "a", true, "x1")
	p.write("a", "x", "other", time.Second)
	p.require(p.look(), "a", true, "x1")

	delete(p.policies, types.NamespacedName{Namespace: "a", Name: "x"})
	p.require(p.look(), "a", false)
	p.write("a", "x", "a", time.Second)
	p.require(p.look(), "a", true)
}

// One look does as much as a look may, and at least one change, those first that waited
// longest.
func TestALookDoesSoMuch(t *testing.T) {
	p := newPaced(t)
	p.write("a", "z", "a", 2*AtOnce)
	p.write("a", "y", "a", AtOnce/2)
	p.require(p.look(), "a", true, "y1")
	p.now = p.now.Add(time.Millisecond)
	p.write("a", "x", "a", AtOnce/2)
	p.require(p.look(), "a", true, "y1", "z1")
	p.write("a", "z", "a", AtOnce/2)
	p.require(p.look(), "a", true, "x1", "y1", "z2")
}

// What costs nothing never waits, and neither does a version that was written again.
func TestWhatCostsNothingNeverWaits(t *testing.T) {
	p := newPaced(t)
	p.write("a", "x", "a", time.Hour)
	p.require(p.look(), "a", true, "x1")
	p.write("a", "y", "a", 0)
	again := *p.policies[types.NamespacedName{Namespace: "a", Name: "x"}]
	p.policies[again.Key()] = &again
	p.require(p.look(), "a", true, "x1", "y1")
}

// A node that starts, or a namespace whose first pod comes, has all policies at once.
func TestAFirstPodHasAllPoliciesAtOnce(t *testing.T) {
	p := newPaced(t)
	p.write("a", "x", "a", time.Hour)
	p.require(p.look(), "a", true, "x1")
	second := p.pods[1]
	p.pods = p.pods[:1]
	p.look()
	p.write("b", "x", "b", time.Hour)
	p.pods = append(p.pods, second)
	p.require(p.look(), "b", true, "x1")
}

// A namespace that always writes has a fifth of the time, whatever it writes.
func TestPaceBoundsAShareOfTime(t *testing.T) {
	p, done, start := newPaced(t), time.Duration(0), time.Unix(1000, 0)
	for p.now.Before(start.Add(time.Hour)) {
		for i, name := range []string{"x", "y", "z"} {
			p.write("a", name, "a", time.Duration(1+i*i*5)*100*time.Millisecond)
		}
		v := p.look()
		for _, np := range p.policies {
			if v.waiting[np.UID] == nil {
				done += p.works[np.UID]
			}
		}
		p.now = p.now.Add(200 * time.Millisecond)
	}
	require.InDelta(t, 1.0/Share, done.Seconds()/p.now.Sub(start).Seconds(), 0.01)
}
