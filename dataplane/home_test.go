package dataplane

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/watch"
)

// The watch of namespaces, which the agent has for the policies, says that Moat's own ends.
func TestTheAgentSeesItsNamespaceEnd(t *testing.T) {
	const moat = "moat-system"
	transform := watch.CacheOptions(thisNode, policy.NewInterner(), policystore.New(0)).ByObject
	seen := func(a *Agent, name string, ends *metav1.Time) {
		t.Helper()
		for kind, options := range transform {
			if _, ok := kind.(*corev1.Namespace); ok {
				object, err := options.Transform(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, DeletionTimestamp: ends}})
				require.NoError(t, err)
				watch.HandlerOf(a.setNamespace, a.deleteNamespace).OnAdd(object, true)
			}
		}
	}
	agent := func() *Agent {
		a := &Agent{model: node.New(thisNode)}
		a.home.name = moat
		return a
	}
	a, now := agent(), metav1.Now()
	seen(a, moat, nil)
	seen(a, "another", &now)
	a.deleteNamespace(types.NamespacedName{Name: "yet-another"})
	require.False(t, a.NamespaceEnds())
	seen(a, moat, &now)
	require.True(t, a.NamespaceEnds())

	a = agent()
	a.deleteNamespace(types.NamespacedName{Name: moat})
	require.True(t, a.NamespaceEnds(), "the moment before was missed")
}
