package selector_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

// An address that passes from one pod to the next is reported where it counts,
// whichever of the two events comes first.
func TestAddressIsHandedOver(t *testing.T) {
	wanted := map[string]policy.PeerSet{"web": across("", "role=web"), "all": across("", "")}
	steps := map[string]func(*selector.Index){
		"the new owner comes": func(ix *selector.Index) { ix.SetPod(newPod("b/new", "role=db", "10.0.0.1")) },
		"the old one goes":    func(ix *selector.Index) { ix.DeletePod(keyOf("a/old")) },
	}
	for _, order := range [][]string{{"the new owner comes", "the old one goes"}, {"the old one goes", "the new owner comes"}} {
		ix := selector.NewIndex()
		ix.Want(wanted)
		ix.SetPod(newPod("a/old", "role=web", "10.0.0.1"))
		changes(ix)
		for _, step := range order {
			steps[step](ix)
		}
		require.Equal(t, []string{"-web 10.0.0.1"}, changes(ix), "%v: no moment outside of the set of all", order)
		require.Equal(t, []string{"10.0.0.1"}, elements(ix, "all"))
		require.Empty(t, elements(ix, "web"))
	}
}

// A named port leaves once its pod doesn't serve it, although another pod shows the
// same address and port name with another number.
func TestSharedAddressWithDifferentPorts(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"http": named(across("", ""), "http")})
	ix.SetPod(serving(newPod("a/1", "", "10.0.0.1"), "http", 80))
	ix.SetPod(serving(newPod("b/1", "", "10.0.0.1"), "http", 81))
	require.Equal(t, []string{"+http 10.0.0.1:80", "+http 10.0.0.1:81"}, changes(ix))
	ix.DeletePod(keyOf("a/1"))
	require.Equal(t, []string{"-http 10.0.0.1:80"}, changes(ix))
}

func TestClassIsEmptiedAndRefilled(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"web": inNamespace("a", "role=web")})
	for range 2 {
		ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
		ix.SetPod(newPod("a/2", "role=web", "10.0.0.2"))
		require.Equal(t, []string{"+web 10.0.0.1", "+web 10.0.0.2"}, changes(ix))
		ix.DeletePod(keyOf("a/1"))
		ix.DeletePod(keyOf("a/2"))
		require.Equal(t, []string{"-web 10.0.0.1", "-web 10.0.0.2"}, changes(ix))
	}
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	changes(ix)
	ix.DeletePod(keyOf("a/1"))
	ix.SetPod(newPod("a/9", "role=web", "10.0.0.1"))
	require.Empty(t, changes(ix), "emptied and refilled between two calls")
	require.Equal(t, []string{"10.0.0.1"}, elements(ix, "web"))
}

func TestNamespaceGoesAndComesBack(t *testing.T) {
	ix := selector.NewIndex()
	ix.Want(map[string]policy.PeerSet{"blue": across("team=blue", "role=web"), "blues": across("team=blue", "")})
	blue := map[string]string{"team": "blue"}
	ix.SetNamespace("a", blue)
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	require.Equal(t, []string{"+blue 10.0.0.1", "+blues 10.0.0.1"}, changes(ix))

	ix.DeleteNamespace("a")
	ix.SetNamespace("a", blue)
	require.Empty(t, changes(ix))

	ix.DeleteNamespace("a")
	require.Equal(t, []string{"-blue 10.0.0.1", "-blues 10.0.0.1"}, changes(ix))
	ix.DeletePod(keyOf("a/1"))
	ix.SetPod(newPod("a/1", "role=web", "10.0.0.1"))
	require.Empty(t, changes(ix), "the labels are unknown")
	ix.SetNamespace("a", blue)
	require.Equal(t, []string{"+blue 10.0.0.1", "+blues 10.0.0.1"}, changes(ix))
}

// A set finds its pods by any of its requirements, also by one that no other set has now.
func TestRequirementsComeAndGo(t *testing.T) {
	ix := selector.NewIndex()
	ix.SetPod(newPod("a/1", "role=web,tier=front", "10.0.0.1"))
	ix.SetPod(newPod("b/1", "role=web,tier=back", "10.0.0.2"))
	web := map[string]policy.PeerSet{"web": across("", "role=web")}
	front := map[string]policy.PeerSet{"front": across("", "role=web,tier=front")}
	for range 2 {
		ix.Want(web)
		require.Equal(t, []string{"+web 10.0.0.1", "+web 10.0.0.2"}, changes(ix))
		ix.Want(front)
		require.Equal(t, []string{"+front 10.0.0.1"}, changes(ix))
		ix.SetPod(newPod("b/1", "role=web,tier=front", "10.0.0.2"))
		require.Equal(t, []string{"+front 10.0.0.2"}, changes(ix))
		ix.SetPod(newPod("b/1", "role=web,tier=back", "10.0.0.2"))
		require.Equal(t, []string{"-front 10.0.0.2"}, changes(ix))
	}
}
