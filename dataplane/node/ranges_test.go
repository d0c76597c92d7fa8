package node

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// nodeStore is an API server that has Nodes with these podCIDRs. It is away where err is
// set, and counts what is asked.
type nodeStore struct {
	client.Reader
	nodes map[string][]string
	err   error
	asked []string
}

func (s *nodeStore) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	s.asked = append(s.asked, key.Name)
	cidrs, found := s.nodes[key.Name]
	switch {
	case s.err != nil:
		return s.err
	case !found:
		return apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, key.Name)
	}
	*into.(*corev1.Node) = corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: key.Name}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
	return nil
}

// An agent reads the Nodes of pods that show one address, each once, and no others.
func TestRangesAreReadWhereAnAddressIsContested(t *testing.T) {
	m := New("node-1")
	store := &nodeStore{nodes: map[string][]string{"node-2": {"10.0.2.0/24"}}, err: errors.New("away")}
	r := NewRangeReader(m, store, logr.Discard())
	r.limit = rate.NewLimiter(rate.Inf, 1)
	peer := func() string {
		if owner := m.addresses.Owners(netip.MustParseAddr("10.0.2.7")).Peer; owner != nil {
			return owner.Name
		}
		return ""
	}
	read := func() error { return r.readDue(t.Context()) }
	m.SetNode(policytest.NodeWith("10.0.1.0/24"))
	m.SetPod(policytest.PodOn("home", "node-2", "10.0.2.7"))
	m.SetPod(policytest.PodOn("other", "node-3", "10.0.3.7"))
	require.Empty(t, m.contested)
	require.NoError(t, read())
	require.Empty(t, store.asked)

	m.SetPod(policytest.PodOn("liar", "gone", "10.0.2.7"))
	require.Len(t, m.contested, 1, "who reads is woken")
	require.ErrorContains(t, read(), "reading Node")
	require.Empty(t, peer())
	store.err, store.asked = nil, nil
	require.NoError(t, read())
	require.Equal(t, "home", peer())
	require.ElementsMatch(t, []string{"node-2", "gone"}, store.asked)
	require.NoError(t, read())
	require.Len(t, store.asked, 2, "they are known")

	m.SetPod(policytest.PodOn("here", "node-1", "10.0.2.7"))
	require.NoError(t, read())
	require.Equal(t, "home", peer(), "this node's ranges are known")
	require.Len(t, store.asked, 2)

	for _, name := range []string{"liar", "here"} {
		m.DeletePod(types.NamespacedName{Namespace: "default", Name: name})
	}
	require.NoError(t, read())
	require.Equal(t, policy.Ranges{"node-1": {netip.MustParsePrefix("10.0.1.0/24")}}, m.addresses.Ranges(), "the others are forgotten")
	require.Empty(t, r.read)
}
