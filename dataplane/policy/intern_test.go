package policy_test

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/dataplane/policy"
)

// webPod returns a pod whose every part is a new value.
func webPod(name string) *policy.Pod {
	text := func(s string) string { return string([]byte(s)) }
	return &policy.Pod{
		Namespace: text("default"), Name: name, Node: text("node-1"), UID: "u", Subject: true, Unusable: "::",
		Labels: labels.Set{text("role"): text("web")},
		Addrs:  []netip.Addr{netip.MustParseAddr("10.0.0.1")}, NodeAddrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Ports: []policy.NamedPort{{Name: text("http"), Protocol: policy.TCP, Number: 80}},
	}
}

func TestInternedPodsShareWhatIsEqual(t *testing.T) {
	in := policy.NewInterner()
	a, b := in.Pod(webPod("a")), in.Pod(webPod("b"))
	require.Equal(t, webPod("a"), a)
	require.Equal(t, webPod("b"), b)
	require.Equal(t, reflect.ValueOf(a.Labels).Pointer(), reflect.ValueOf(b.Labels).Pointer())
	require.Same(t, &a.Ports[0], &b.Ports[0])
	require.Same(t, unsafe.StringData(a.Namespace), unsafe.StringData(b.Namespace))
	require.Same(t, unsafe.StringData(a.Node), unsafe.StringData(b.Node))

	other := webPod("c")
	other.Labels["role"], other.Ports[0].Number = "db", 81
	want := maps.Clone(other.Labels)
	require.Equal(t, want, in.Pod(other).Labels)
	require.Equal(t, labels.Set{"role": "web"}, a.Labels)
	require.Nil(t, in.Labels(nil))
}

func TestInternedPoliciesShareSelectors(t *testing.T) {
	in := policy.NewInterner()
	named := func(name string) *policy.Policy {
		selector := labels.SelectorFromSet(labels.Set{"role": "web"})
		peers := []policy.Peer{{Pods: &policy.PodPeer{Namespaces: labels.Everything(), Pods: labels.SelectorFromSet(labels.Set{"role": "db"})}}}
		return &policy.Policy{Namespace: "default", Name: name, Selector: selector, Rules: [policy.Directions][]policy.Rule{{{Peers: peers}}}}
	}
	pointer := func(s labels.Selector) uintptr { return reflect.ValueOf(s).Pointer() }
	a, b := in.Policy(named("a")), in.Policy(named("b"))
	require.Equal(t, named("a"), a)
	require.Equal(t, pointer(a.Selector), pointer(b.Selector))
	require.Equal(t, pointer(a.Rules[0][0].Peers[0].Pods.Pods), pointer(b.Rules[0][0].Peers[0].Pods.Pods))
	require.NotEqual(t, pointer(a.Selector), pointer(a.Rules[0][0].Peers[0].Pods.Pods))
}

// Whatever it saw before, and however much, an interner returns equal values.
func TestInternerForgets(t *testing.T) {
	in := policy.NewInterner()
	for i := range 100_000 {
		set := labels.Set{"index": fmt.Sprint(i), "role": "web"}
		require.True(t, maps.Equal(set, in.Labels(maps.Clone(set))))
	}
	first := in.Labels(labels.Set{"index": "0"})
	require.Equal(t, labels.Set{"index": "0"}, first)
	require.Equal(t, reflect.ValueOf(first).Pointer(), reflect.ValueOf(in.Labels(labels.Set{"index": "0"})).Pointer())
}

// A field that Equal forgets would be a change that the agent doesn't see.
func TestEveryFieldOfAPodCounts(t *testing.T) {
	pod := webPod("a")
	require.True(t, pod.Equal(webPod("a")))
	fields := reflect.TypeFor[policy.Pod]()
	for i := range fields.NumField() {
		other := webPod("a")
		field := reflect.ValueOf(other).Elem().Field(i)
		if field.IsZero() {
			require.Equal(t, reflect.Bool, field.Kind(), "give webPod a value for %s", fields.Field(i).Name)
			field.SetBool(true)
		} else {
			field.SetZero()
		}
		require.False(t, pod.Equal(other), fields.Field(i).Name)
	}
}
