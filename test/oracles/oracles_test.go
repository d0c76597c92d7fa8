package oracles

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// engine is a judge of the flows of one cluster.
type engine interface {
	allows(policy.Flow) bool
}

const (
	clusters = 2000

	// every is the part of the flows of a cluster that is judged: one in so many,
	// a prime so that all ends, ports and protocols take their turn.
	every = 23
)

func TestCyclonus(t *testing.T) {
	t.Parallel()
	compare(t, newCyclonus, ownNode, notInNeedsKey, emptyIsMissing)
}

func TestKubeNetworkPolicies(t *testing.T) {
	t.Parallel()
	compare(t, newKubeNetworkPolicies, ownNode, emptyListAllows, nameIsPortZero, sidecarsServeNothing, endedKeepsAddress)
}

// compare lets the engine and Evaluate judge random clusters. They must agree
// once all classes are applied, and each class must be needed somewhere.
func compare(t *testing.T, newEngine func(*policytest.Objects) engine, classes ...class) {
	total := tally{classes: make([]int, len(classes))}
	for seed := range uint64(clusters) {
		o := func() *policytest.Objects { return policytest.RandomDice(seed, 900).StoredCluster() }
		newComparison(t, o, newEngine, classes).run(&total, int(seed))
	}
	t.Logf("%d flows: %d allowed, %d denied; explained: %d of a pod to itself", total.allowed+total.denied, total.allowed, total.denied, total.self)
	for i, class := range classes {
		t.Logf("  %6d %s", total.classes[i], class.name)
		require.NotZero(t, total.classes[i], "%s explains nothing", class.name)
	}
	require.NotZero(t, total.self)
	require.Greater(t, total.allowed+total.denied, 1_000_000)
	require.Greater(t, min(total.allowed, total.denied), (total.allowed+total.denied)/10)
}

// tally counts flows by our verdict, and the disagreements of each class.
type tally struct {
	allowed, denied, self int
	classes               []int
}

// comparison is one cluster with its judges.
type comparison struct {
	t       *testing.T
	objects *policytest.Objects
	theirs  engine
	ours    *policy.Cluster

	// read is ours with all classes applied, without[i] with all but the i-th.
	read    *policy.Cluster
	without []*policy.Cluster
}

func newComparison(t *testing.T, objects func() *policytest.Objects, newEngine func(*policytest.Objects) engine, classes []class) *comparison {
	c := &comparison{t: t, objects: objects(), theirs: newEngine(objects()), read: readAs(objects(), classes)}
	c.ours = c.objects.Cluster()
	for _, p := range c.ours.Policies {
		require.Empty(t, p.Unreadable, c.objects)
	}
	for i := range classes {
		c.without = append(c.without, readAs(objects(), slices.Concat(classes[:i], classes[i+1:])))
	}
	return c
}

// readAs reads objects of the caller's own as the classes say.
func readAs(o *policytest.Objects, classes []class) *policy.Cluster {
	for _, class := range classes {
		if class.objects != nil {
			class.objects(o)
		}
	}
	c := o.Cluster()
	for _, class := range classes {
		if class.cluster != nil {
			class.cluster(c)
		}
	}
	return c
}

func (c *comparison) run(total *tally, turn int) {
	services := c.objects.Services()
	for _, from := range c.objects.Ends() {
		for _, to := range c.objects.Ends() {
			if from.Addr.Is4() != to.Addr.Is4() || !from.Pod && !to.Pod {
				continue
			}
			for _, service := range services {
				if turn++; turn%every != 0 {
					continue
				}
				service = service.For(from.Addr)
				c.flow(total, policy.Flow{Source: from.Addr, Destination: to.Addr, Protocol: service.Protocol, Port: service.Port})
			}
		}
	}
}

func (c *comparison) flow(total *tally, flow policy.Flow) {
	ours, theirs := c.ours.Evaluate(flow).Allowed(), c.theirs.allows(flow)
	if ours {
		total.allowed++
	} else {
		total.denied++
	}
	// Neither engine knows that a pod can't be kept from talking to itself, and
	// no objects say so either.
	if flow.Source == flow.Destination {
		require.True(c.t, ours)
		if !theirs {
			total.self++
		}
		return
	}
	require.Equal(c.t, c.read.Evaluate(flow).Allowed(), theirs, "%+v: Evaluate reads the objects otherwise, and no class says so; unread: %v\n%s", flow, ours, c.objects)
	if ours == theirs {
		return
	}
	for i, cluster := range c.without {
		if cluster.Evaluate(flow).Allowed() != theirs {
			total.classes[i]++
		}
	}
}
