package selector_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/selector"
)

func parseSelector(text string) labels.Selector {
	s, err := labels.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// inNamespace and across are the two kinds of peers.
func inNamespace(namespace, pods string) policy.PeerSet {
	return policy.PeerSet{Pods: policy.PodPeer{Namespace: namespace, Pods: parseSelector(pods)}}
}

func across(namespaces, pods string) policy.PeerSet {
	return policy.PeerSet{Pods: policy.PodPeer{Namespaces: parseSelector(namespaces), Pods: parseSelector(pods)}}
}

func named(set policy.PeerSet, port string) policy.PeerSet {
	set.PortName, set.Protocol = port, policy.TCP
	return set
}

// newPod makes a pod "namespace/name" with labels "key=value,…".
func newPod(key, labelText string, addrs ...string) *policy.Pod {
	namespace, name, _ := strings.Cut(key, "/")
	pod := &policy.Pod{Namespace: namespace, Name: name, Labels: labels.Set{}, Subject: true}
	for _, pair := range strings.FieldsFunc(labelText, func(r rune) bool { return r == ',' }) {
		k, v, _ := strings.Cut(pair, "=")
		pod.Labels[k] = v
	}
	for _, addr := range addrs {
		pod.Addrs = append(pod.Addrs, netip.MustParseAddr(addr))
	}
	return pod
}

func serving(pod *policy.Pod, port string, number uint16) *policy.Pod {
	pod.Ports = append(pod.Ports, policy.NamedPort{Name: port, Protocol: policy.TCP, Number: number})
	return pod
}

func keyOf(text string) types.NamespacedName {
	namespace, name, _ := strings.Cut(text, "/")
	return types.NamespacedName{Namespace: namespace, Name: name}
}

// changes returns what the index reports, sorted: "+set element" and "-set element".
func changes(ix *selector.Index) []string {
	list := []string{}
	ix.Changes(func(name string, element policy.Element, member bool) {
		sign := "-"
		if member {
			sign = "+"
		}
		list = append(list, sign+name+" "+elementText(element))
	})
	slices.Sort(list)
	return list
}

func elementText(e policy.Element) string {
	if e.Port == 0 {
		return e.Addr.String()
	}
	return fmt.Sprintf("%s:%d", e.Addr, e.Port)
}

func elements(ix *selector.Index, name string) []string {
	list := []string{}
	ix.Elements(name, func(e policy.Element) { list = append(list, elementText(e)) })
	slices.Sort(list)
	return list
}

func TestPodEntersAndLeaves(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"web": inNamespace("a", "role=web")})
	require.Empty(t, changes(ix))

	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1", "fd00::1"))
	ix.SetPod(newPod("b/1", "role=web", "10.0.0.2"))
	require.Equal(t, []string{"+web 10.0.0.1", "+web fd00::1"}, changes(ix))
	require.Empty(t, changes(ix), "a change is reported once")

	ix.SetPod(newPod("a/1", "role=db", "10.0.0.1", "fd00::1"))
	require.Equal(t, []string{"-web 10.0.0.1", "-web fd00::1"}, changes(ix))

	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	ix.DeletePod(keyOf("a/1"))
	require.Empty(t, changes(ix), "came and went unseen")
	ix.DeletePod(keyOf("a/unknown"))
	require.Empty(t, elements(ix, "web"))
}

func TestThereAndBackIsNoChange(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"web": across("", "role=web")})
	ix.SetNamespace("a", nil)
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	changes(ix)

	ix.SetPod(newPod("a/1", "role=db", "10.0.0.1"))
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	require.Empty(t, changes(ix), "labels A, B, A")

	ix.SetPod(newPod("a/1", "role=web", "10.0.0.9"))
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	require.Empty(t, changes(ix), "addresses A, B, A")

	ix.SetPod(newPod("a/1", "role=web,new=label", "10.0.0.1"))
	ix.SetNamespace("a", map[string]string{"new": "label"})
	require.Empty(t, changes(ix), "labels that no set requires")
}

func TestAddressMoves(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"web": inNamespace("a", "role=web"), "db": inNamespace("a", "role=db")})
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	changes(ix)

	ix.SetPod(newPod("a/1", "role=web", "10.0.0.2"))
	require.Equal(t, []string{"+web 10.0.0.2", "-web 10.0.0.1"}, changes(ix))

	ix.SetPod(newPod("a/1", "role=db", "10.0.0.2"))
	require.Equal(t, []string{"+db 10.0.0.2", "-web 10.0.0.2"}, changes(ix))

	ix.SetPod(newPod("a/1", "role=db"))
	require.Equal(t, []string{"-db 10.0.0.2"}, changes(ix), "a pod that has lost its address")
}

// For a moment the old and the new owner of an address may both be there.
func TestTwoPodsShareAnAddress(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"web": inNamespace("a", "role=web")})
	ix.SetPod(newPod("a/old", "role=web", "10.0.0.1"))
	changes(ix)

	ix.SetPod(newPod("a/new", "role=web", "10.0.0.1"))
	require.Empty(t, changes(ix))
	ix.DeletePod(keyOf("a/old"))
	require.Empty(t, changes(ix), "the new owner holds the address")
	require.Equal(t, []string{"10.0.0.1"}, elements(ix, "web"))
	ix.DeletePod(keyOf("a/new"))
	require.Equal(t, []string{"-web 10.0.0.1"}, changes(ix))
}

func TestNamespaceLabels(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{
		"blue":    across("team=blue", "role=web"),
		"notblue": across("team!=blue", ""),
		"every":   across("", ""),
	})
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	ix.SetPod(newPod("a/2", "role=db", "10.0.0.2"))
	require.Equal(t, []string{"+every 10.0.0.1", "+every 10.0.0.2"}, changes(ix), "the namespace's labels are unknown")

	ix.SetNamespace("a", map[string]string{"team": "blue"})
	require.Equal(t, []string{"+blue 10.0.0.1"}, changes(ix))

	ix.SetNamespace("a", map[string]string{"team": "green"})
	require.Equal(t, []string{"+notblue 10.0.0.1", "+notblue 10.0.0.2", "-blue 10.0.0.1"}, changes(ix))

	ix.DeleteNamespace("a")
	require.Equal(t, []string{"-notblue 10.0.0.1", "-notblue 10.0.0.2"}, changes(ix))
	ix.DeleteNamespace("unknown")
	require.Empty(t, changes(ix))
}

func TestNamedPorts(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"http": named(inNamespace("a", "role=web"), "http")})
	ix.SetPod(serving(newPod("a/1", "role=web", "10.0.0.1"), "http", 8080))
	ix.SetPod(serving(newPod("a/2", "role=web", "10.0.0.2"), "http", 9090))
	ix.SetPod(newPod("a/3", "role=web", "10.0.0.3"))
	require.Equal(t, []string{"+http 10.0.0.1:8080", "+http 10.0.0.2:9090"}, changes(ix))

	// The pod is replaced by one of the same name that serves another number.
	ix.SetPod(serving(newPod("a/1", "role=web", "10.0.0.1"), "http", 8081))
	require.Equal(t, []string{"+http 10.0.0.1:8081", "-http 10.0.0.1:8080"}, changes(ix))
	ix.SetPod(newPod("a/2", "role=web", "10.0.0.2"))
	require.Equal(t, []string{"-http 10.0.0.2:9090"}, changes(ix))
}

func TestWant(t *testing.T) {
	ix := selector.NewIndex()
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	web := map[string]policy.PeerSet{"web": inNamespace("a", "role=web")}

	ix.Want(web)
	ix.Want(web)
	require.Equal(t, []string{"+web 10.0.0.1"}, changes(ix), "a set that is newly wanted is filled")

	ix.Want(nil)
	ix.SetPod(newPod("a/2", "role=web", "10.0.0.2"))
	require.Empty(t, changes(ix), "a set that isn't wanted any more is not followed")
	require.Empty(t, elements(ix, "web"))

	ix.Want(web)
	require.Equal(t, []string{"+web 10.0.0.1", "+web 10.0.0.2"}, changes(ix), "wanted again, it is new")
	ix.DeletePod(keyOf("a/1"))
	require.Equal(t, []string{"-web 10.0.0.1"}, changes(ix))
}

func TestElementsOfUnknownSet(t *testing.T) {
	require.Empty(t, elements(selector.NewIndex(), "unknown"))
}

// known sums up changes, as the kernel does.
type known map[string]map[policy.Element]bool

func (k known) apply(t *testing.T, ix *selector.Index) {
	t.Helper()
	ix.Changes(func(name string, element policy.Element, member bool) {
		if k[name] == nil {
			k[name] = map[policy.Element]bool{}
		}
		require.NotEqual(t, member, k[name][element], "%s: a change that changes nothing", name)
		if member {
			k[name][element] = true
		} else {
			delete(k[name], element)
		}
	})
}

func (k known) list(name string) []string {
	list := []string{}
	for element := range k[name] {
		list = append(list, elementText(element))
	}
	slices.Sort(list)
	return list
}

// truth recomputes membership from all pods.
type truth struct {
	pods       map[types.NamespacedName]*policy.Pod
	namespaces policy.Namespaces
}

func (tr truth) list(peers policy.PeerSet) []string {
	members := map[string]struct{}{}
	for _, pod := range tr.pods {
		if policytest.Selects(&peers.Pods, pod, tr.namespaces) {
			peers.Elements(pod, func(element policy.Element) { members[elementText(element)] = struct{}{} })
		}
	}
	list := slices.AppendSeq([]string{}, maps.Keys(members))
	slices.Sort(list)
	return list
}
