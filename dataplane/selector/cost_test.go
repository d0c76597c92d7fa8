package selector_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

// counting is a selector that counts how often it is evaluated.
type counting struct {
	labels.Selector
	evaluations *int
}

func (c counting) Matches(set labels.Labels) bool {
	*c.evaluations++
	return c.Selector.Matches(set)
}

// crowd is a cluster of namespaces with the same ten applications of ten pods each,
// of which ten local namespaces are asked for.
type crowd struct {
	*selector.Index
	evaluations int
}

func newCrowd(namespaces int) *crowd {
	c := &crowd{Index: selector.NewIndex()}
	wanted := map[string]policy.PeerSet{"every": c.counted(across("", ""))}
	for n := range 10 {
		namespace := fmt.Sprintf("ns-%d", n)
		wanted[namespace] = c.counted(inNamespace(namespace, ""))
		for app := range 10 {
			wanted[fmt.Sprintf("%s-%d", namespace, app)] = c.counted(inNamespace(namespace, fmt.Sprintf("app=%d", app)))
			wanted[fmt.Sprintf("team-%s-%d", namespace, app)] = c.counted(across("team="+namespace, fmt.Sprintf("app=%d,tier!=x", app)))
		}
	}
	c.Want(wanted)
	for n := range namespaces {
		namespace := fmt.Sprintf("ns-%d", n)
		c.SetNamespace(namespace, map[string]string{"team": namespace})
		for i := range 100 {
			c.SetPod(crowdPod(namespace, i, i/10))
		}
	}
	c.Changes(func(string, policy.Element, bool) {})
	return c
}

func crowdPod(namespace string, i, app int) *policy.Pod {
	var n int
	_, _ = fmt.Sscanf(namespace, "ns-%d", &n)
	return newPod(fmt.Sprintf("%s/%d", namespace, i), fmt.Sprintf("app=%d,tier=web", app), fmt.Sprintf("10.%d.%d.%d", n/256, n%256, i))
}

func (c *crowd) counted(set policy.PeerSet) policy.PeerSet {
	set.Pods.Pods = counting{set.Pods.Pods, &c.evaluations}
	if set.Pods.Namespaces != nil {
		set.Pods.Namespaces = counting{set.Pods.Namespaces, &c.evaluations}
	}
	return set
}

// cost returns how often a change makes the index evaluate a selector, and how
// many elements it reports.
func (c *crowd) cost(change func(*selector.Index)) [2]int {
	before, changed := c.evaluations, 0
	change(c.Index)
	c.Changes(func(string, policy.Element, bool) { changed++ })
	return [2]int{c.evaluations - before, changed}
}

// What a pod event costs doesn't depend on the number of pods and namespaces.
func TestPodEventCostsTheSameInALargeCluster(t *testing.T) {
	const factor = 100
	small, large := newCrowd(10), newCrowd(10*factor)
	for _, event := range []struct {
		name   string
		change func(*selector.Index)
		most   [2]int // evaluations, elements
	}{
		{"a pod comes to its class", func(ix *selector.Index) { ix.SetPod(crowdPod("ns-5", 100, 3)) }, [2]int{0, 4}},
		{"its application changes", func(ix *selector.Index) { ix.SetPod(crowdPod("ns-5", 100, 4)) }, [2]int{0, 4}},
		{"nothing changes", func(ix *selector.Index) { ix.SetPod(crowdPod("ns-5", 100, 4)) }, [2]int{0, 0}},
		{"it goes", func(ix *selector.Index) { ix.DeletePod(keyOf("ns-5/100")) }, [2]int{0, 4}},
		{"a new class comes", func(ix *selector.Index) {
			ix.SetPod(newPod("ns-5/new", "app=3,tier=web,pod=new", "10.9.9.9"))
		}, [2]int{30, 4}},
		{"it goes", func(ix *selector.Index) { ix.DeletePod(keyOf("ns-5/new")) }, [2]int{0, 4}},
	} {
		cost := small.cost(event.change)
		require.Equal(t, cost, large.cost(event.change), "%s: with %d times as many pods", event.name, factor)
		require.LessOrEqual(t, cost[0], event.most[0], "%s: evaluations", event.name)
		require.Equal(t, event.most[1], cost[1], "%s: elements", event.name)
	}
}

// A set that is newly wanted is compared with the classes that have one of its labels.
func TestNewSetLooksAtFewClasses(t *testing.T) {
	c := newCrowd(1000)
	for i := range 100 {
		c.SetPod(newPod(fmt.Sprintf("ns-%d/rare", i), "app=rare,tier=web", fmt.Sprintf("10.20.0.%d", i)))
	}
	wanted := map[string]policy.PeerSet{"rare": c.counted(across("", "tier=web,app=rare"))}
	c.Want(wanted)
	before := c.evaluations
	wanted["again"] = c.counted(across("", "app=rare,tier in (web, x)"))
	c.Want(wanted)
	require.Len(t, elements(c.Index, "again"), 100)
	require.LessOrEqual(t, c.evaluations-before, 200, "one of each of 100 classes, of 10,100 in all")
}

func BenchmarkPodComesAndGoes(b *testing.B) {
	c := newCrowd(1000)
	pod := crowdPod("ns-5", 100, 3)
	b.ReportAllocs()
	for b.Loop() {
		c.SetPod(pod)
		c.DeletePod(pod.Key())
		c.Changes(func(string, policy.Element, bool) {})
	}
}
