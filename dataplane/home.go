package dataplane

import (
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/policy"
)

// home is what the watch of namespaces says of the one that Moat is installed in. The
// informer writes it, others read it.
type home struct {
	name string
	ends atomic.Bool
}

// NamespaceEnds reports whether the namespace that Moat is installed in is being deleted,
// as far as the agent has seen. It is safe for concurrent use.
func (a *Agent) NamespaceEnds() bool { return a.home.ends.Load() }

// Checks are the agent's health checks.
func (a *Agent) Checks() *health.Checks { return a.health }

// Ending makes the agent say that it isn't ready any more, since it was told to end. It
// goes on enforcing until its manager stops.
func (a *Agent) Ending() { a.health.Leave() }

func (a *Agent) setNamespace(n *policy.Namespace) {
	if n.Name == a.home.name {
		a.home.ends.Store(n.Ends)
	}
	a.model.SetNamespace(n)
}

func (a *Agent) deleteNamespace(key types.NamespacedName) {
	if key.Name == a.home.name {
		a.home.ends.Store(true)
	}
	a.model.DeleteNamespace(key)
}
