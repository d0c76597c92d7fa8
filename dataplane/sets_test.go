package dataplane

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/ipset"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// policySpecs are the policies that come and go in the random test: peers of all
// kinds, named ports, blocks of both families.
var policySpecs = []string{
	`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: web}}}]}]}`,
	`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {role: web}}}]}]}`,
	`{podSelector: {matchLabels: {role: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: http}]}]}`,
	`{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: http}]}, {to: [{namespaceSelector: {}}]}]}`,
	`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: "fd00::/8", except: ["fd01::/16"]}}]}]}`,
	`{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress]}`,
}

// randomModel makes random changes to a model.
type randomModel struct {
	*model
	source *rand.Rand
	t      *testing.T
}

func (r *randomModel) step() {
	namespace := fmt.Sprintf("ns-%d", r.source.IntN(2))
	switch r.source.IntN(8) {
	case 0:
		r.see(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: r.labels("team", "blue", "green")}})
	case 1:
		r.lose(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	case 2, 3:
		r.changePolicy(namespace)
	case 4:
		r.lose(r.podObject(namespace))
	default:
		r.see(r.podObject(namespace))
	}
}

func (r *randomModel) changePolicy(namespace string) {
	i := r.source.IntN(len(policySpecs))
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint(i)}}
	if r.source.IntN(3) == 0 {
		r.lose(np)
		return
	}
	require.NoError(r.t, yaml.UnmarshalStrict([]byte(policySpecs[i]), &np.Spec))
	r.see(np)
}

func (r *randomModel) podObject(namespace string) *corev1.Pod {
	i := r.source.IntN(5)
	pod := podObject(fmt.Sprint(i), fmt.Sprintf("node-%d", i%2), fmt.Sprintf("10.0.%d.%d", i%2, r.source.IntN(6)), fmt.Sprintf("fd00::%d", r.source.IntN(6)))
	pod.Namespace, pod.Labels = namespace, r.labels("role", "web", "db")
	if r.source.IntN(2) == 0 {
		pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(80 + r.source.IntN(3))}}}}
	}
	return pod
}

func (r *randomModel) labels(key string, values ...string) map[string]string {
	if i := r.source.IntN(len(values) + 1); i < len(values) {
		return map[string]string{key: values[i]}
	}
	return nil
}

// The plan that follows the index, carried out step after step, keeps the kernel
// at what a full comparison would make of it.
func TestIncrementalPlanAgreesWithFullDiff(t *testing.T) {
	for seed := range uint64(30) {
		r := &randomModel{newModel("node-1"), rand.New(rand.NewPCG(seed, 7)), t}
		kernel, known := ipset.State{}, ipset.State{}
		for step := range 60 {
			for range 1 + r.source.IntN(3) {
				r.step()
			}
			outputs := compileAll(r.view(0))
			r.index.Want(wantedSets(outputs))
			declared := declaredSets(outputs)
			carryOut(t, kernel, incrementalPlan(known, declared, r.index))
			known = declared

			full := ipset.Diff(kernel, fullSets(outputs, r.index))
			require.Equal(t, ipset.Plan{}, full, "seed %d, step %d: what a full comparison would still do", seed, step)
		}
	}
}

func compileAll(v *view) []compile.Output {
	var outputs []compile.Output
	for _, family := range ruleset.Families() {
		outputs = append(outputs, compile.Compile(compile.Host{}, family, v.endpoints, compile.Links{}, compile.Guard{}))
	}
	return outputs
}

// carryOut does with a state what the kernel does, and refuses what it refuses.
func carryOut(t *testing.T, kernel ipset.State, plan ipset.Plan) {
	t.Helper()
	require.Empty(t, plan.Replace)
	for _, set := range plan.Create {
		require.NotContains(t, kernel, set.Name)
		set.Members = ruleset.Members{}
		kernel[set.Name] = set
	}
	for _, c := range plan.Add {
		set, exists := kernel[c.Set]
		require.True(t, exists, "adding to %s, which doesn't exist", c.Set)
		require.Equal(t, set.Type, c.Type)
		require.True(t, set.Family.Holds(c.Member.Prefix.Addr()), "%v in %s", c.Member, c.Set)
		set.Members[c.Member] = struct{}{}
	}
	for _, c := range plan.Delete {
		require.Contains(t, kernel, c.Set)
		delete(kernel[c.Set].Members, c.Member)
	}
	for _, name := range plan.Destroy {
		require.Contains(t, kernel, name)
		delete(kernel, name)
	}
}

func TestFullSets(t *testing.T) {
	m := newModel("node-1")
	m.see(podObject("web", "node-1", "10.0.0.1", "fd00::1"))
	np := denyAll("p", 1)
	require.NoError(t, yaml.UnmarshalStrict([]byte(`{policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9]}}, {ipBlock: {cidr: 9.0.0.0/8}}]}]}`), &np.Spec))
	m.see(np)
	outputs := compileAll(m.view(0))
	m.index.Want(wantedSets(outputs))

	sizes := map[string]int{}
	for name, set := range fullSets(outputs, m.index) {
		sizes[string(set.Type)+" "+set.Family.String()] += len(set.Members)
		require.Equal(t, name, set.Name)
	}
	require.Equal(t, map[string]int{"hash:ip IPv4": 1, "hash:ip IPv6": 1, "hash:net IPv4": 2}, sizes,
		"the peer's address of each family and the blocks; isolated pods are written apart")
}

func TestIsolatedSetsAreWrittenApart(t *testing.T) {
	m := newModel("node-1")
	m.see(podObject("web", "node-1", "10.0.0.1"))
	m.see(denyAll("p", 1))
	outputs := compileAll(m.view(0))
	v4 := compile.IsolatedSet(ruleset.IPv4, policy.Ingress)

	wanted := isolatedState(outputs)
	require.Len(t, wanted, 4, "both directions of both families")
	require.Len(t, wanted[v4].Members, 1)

	// What the kernel holds: the set is there, with a member, and another isn't.
	have := ipset.State{v4: wanted[v4], "moat-other": {Name: "moat-other"}}
	taken := takeIsolated(have, outputs)
	require.Equal(t, ipset.State{v4: wanted[v4]}, taken)
	require.Empty(t, have[v4].Members, "left as it is declared")
	require.Contains(t, have, "moat-other")
	plan := ipset.Diff(have, declaredSets(outputs))
	require.Empty(t, plan.Add, "no member of an isolated set is in the plan of the others")
	require.Empty(t, plan.Delete)
}

// What opens is taken out of the plan, and what closes stays in it. Sets that were read from the
// kernel have no effect, so the wanted sets decide.
func TestTakeLocalGoesByTheWantedSets(t *testing.T) {
	m := newModel("node-1")
	m.see(podObject("web", "node-1", "10.0.0.1"))
	open := podObject("open", "node-1", "10.0.0.2")
	open.Namespace = "elsewhere"
	m.see(open)
	m.see(denyAll("p", 1))
	guard := compile.Guard{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	for _, pod := range m.view(0).local {
		guard.Local = append(guard.Local, pod.Addrs...)
	}
	outputs := []compile.Output{compile.Compile(compile.Host{}, ruleset.IPv4, m.view(0).endpoints, compile.Links{}, guard)}
	want := isolatedState(outputs)
	local, ingress := compile.LocalSet(ruleset.IPv4), compile.IsolatedSet(ruleset.IPv4, policy.Ingress)
	gone := ruleset.Address(netip.MustParseAddr("10.0.0.9"))
	have := ipset.State{}
	for _, name := range []string{local, ingress} {
		have[name] = ruleset.Set{Name: name, Type: ruleset.HashIP, Family: ruleset.IPv4, Members: ruleset.Members{gone: {}}}
	}
	change := func(set, addr string) []ipset.Change {
		return []ipset.Change{{Set: set, Type: ruleset.HashIP, Member: ruleset.Address(netip.MustParseAddr(addr))}}
	}

	for _, stands := range []bool{true, false} {
		plan := ipset.Diff(have, want)
		taken := takeLocal(&plan, want, func(ruleset.Family) bool { return stands })
		require.Equal(t, change(ingress, "10.0.0.9"), plan.Delete)
		require.Equal(t, change(ingress, "10.0.0.1"), plan.Add)
		require.Equal(t, change(local, "10.0.0.9"), taken.remove)
		if stands {
			require.Equal(t, change(local, "10.0.0.2"), taken.early)
			require.Equal(t, change(local, "10.0.0.1"), taken.late, "once its rules are in force")
		} else {
			require.Len(t, taken.early, 2, "before the guard comes")
			require.Empty(t, taken.late)
		}
	}
}
