package flows

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
)

// lookup answers what a verdict asks, as far as this node enforces it: policies
// isolate its own pods alone. It is asked within model.peers, which gives it its peers.
type lookup struct {
	node      string
	peers     node.Peers
	endpoints map[types.NamespacedName]*policy.Endpoint
	orphans   map[netip.Addr]*policy.Pod
	links     compile.Links
	own       nodeAddresses
}

// nodeAddresses are those of the node itself.
type nodeAddresses struct {
	all conntrack.Addresses

	// closed are those of links that are closed for what pods send.
	closed conntrack.Addresses
}

// causes tell what forbids a class of connections.
type causes [compile.CutCauses]bool

func newLookup(m *node.Model, v *Enforced, own nodeAddresses) *lookup {
	l := &lookup{node: m.Node(), endpoints: make(map[types.NamespacedName]*policy.Endpoint, len(v.Endpoints)), links: v.Links, own: own}
	for i := range v.Endpoints {
		l.endpoints[v.Endpoints[i].Pod.Key()] = &v.Endpoints[i]
	}
	l.orphans = map[netip.Addr]*policy.Pod{}
	for _, endpoint := range v.Endpoints[len(v.Endpoints)-v.Gone:] {
		for _, addr := range endpoint.Pod.Addrs {
			l.orphans[addr] = endpoint.Pod
		}
	}
	return l
}

// Owners implements policy.Lookup.
func (l *lookup) Owners(addr netip.Addr) policy.Owners {
	owners := l.peers.Owners(addr)
	if orphan := l.orphans[addr]; orphan != nil {
		owners.All = append(owners.All, orphan)
	}
	return owners
}

// Isolating implements policy.Lookup.
func (l *lookup) Isolating(d policy.Direction, pod *policy.Pod) []*policy.Policy {
	endpoint := l.endpoints[pod.Key()]
	if endpoint == nil {
		return nil
	}
	return endpoint.Isolating[d]
}

// Labels implements policy.Lookup.
func (l *lookup) Labels() policy.Namespaces { return l.peers.Namespaces() }

// Node implements policy.Lookup. Of other nodes it knows nothing: they are peers by
// their addresses alone.
func (l *lookup) Node(addr netip.Addr) string {
	if l.own.all.Has(addr) {
		return l.node
	}
	return ""
}

// forbids says what of this node forbids the class. One that either end may have opened
// is allowed only if both might.
func (l *lookup) forbids(class *conntrack.Class) causes {
	var by causes
	for _, reading := range class.Readings() {
		verdict := policy.Judge(l, reading.Flow())
		by[compile.ByPolicy] = by[compile.ByPolicy] || !verdict.Allowed()
		by[compile.ByLink] = by[compile.ByLink] || l.linkForbids(&reading)
	}
	return by
}

// linkForbids reports whether the class is forbidden on a link, if it goes by that:
// only the rules can tell. What the node sends is never filtered, and of what it gets
// only what its pods send is.
func (l *lookup) linkForbids(class *conntrack.Class) bool {
	if l.own.all.Has(class.Client) {
		return false
	}
	sent := class.LinkLocal(policy.Egress) && len(l.links[policy.Egress]) > 0
	received := class.LinkLocal(policy.Ingress) && len(l.links[policy.Ingress]) > 0
	if l.own.all.Has(class.Server) {
		return sent && (!class.LinkLocal(policy.Ingress) || l.own.closed.Has(class.Server))
	}
	return sent || received
}
