package isolation

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// APIServerSlice is the EndpointSlice that the API servers write: the one of the name of
// their Service (pkg/controlplane/reconcilers/endpointsadapter.go of Kubernetes).
var APIServerSlice = types.NamespacedName{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}

// defaultDNSPorts is the default of the CRD.
var defaultDNSPorts = []v1alpha1.Port{
	{Port: new(intstr.FromInt32(53)), Protocol: "UDP"},
	{Port: new(intstr.FromInt32(53)), Protocol: "TCP"},
}

// entity compiles a peer by name. A name that this version doesn't know allows no peer: a
// newer CRD may know more.
func (c *compiler) entity(entity v1alpha1.Entity) []grant {
	switch entity {
	case v1alpha1.EntityAnywhere:
		return []grant{{anyone: true}}
	case v1alpha1.EntitySameNamespace:
		return peersOnly(networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}})
	case v1alpha1.EntityAllNamespaces:
		return peersOnly(networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}})
	case v1alpha1.EntityKubeAPIServer:
		return c.apiServer()
	default: // those that a config says
	}
	if c.world.Config == nil {
		return c.notConfigured(entity, "there is no IsolationConfig named "+v1alpha1.IsolationConfigName)
	}
	switch config := c.world.Config; entity {
	case v1alpha1.EntityInternet:
		return peersOnly(internet(config.ClusterCIDRs)...)
	case v1alpha1.EntityNodes:
		return c.nodes(entity)
	case v1alpha1.EntityDNS:
		return c.dns()
	case v1alpha1.EntityIngressControllers:
		return c.configured(entity, config.IngressControllers)
	case v1alpha1.EntityMonitoring:
		return c.configured(entity, config.Monitoring)
	default:
		return c.notConfigured(entity, "this version of Moat doesn't know it")
	}
}

func (c *compiler) notConfigured(entity v1alpha1.Entity, why string) []grant {
	return c.unresolved(v1alpha1.ReasonEntityNotConfigured, "entity %s: %s", entity, why)
}

// dns is a grant with the ports of DNS.
func (c *compiler) dns() []grant {
	if c.world.Config == nil {
		return c.notConfigured(v1alpha1.EntityDNS, "there is no IsolationConfig named "+v1alpha1.IsolationConfigName)
	}
	config := c.world.Config.DNS
	if config == nil {
		return c.configured(v1alpha1.EntityDNS, nil)
	}
	all := grant{ports: compilePorts(config.DeepCopy().Ports), ownPorts: true}
	if len(all.ports) == 0 { // Stored without the CRD's default. Not every port.
		all.ports = compilePorts(defaultDNSPorts)
	}
	all.add(c.configured(v1alpha1.EntityDNS, &config.EntityConfig)...)
	return []grant{all}
}

// configured compiles what the IsolationConfig says of an entity.
func (c *compiler) configured(entity v1alpha1.Entity, config *v1alpha1.EntityConfig) []grant {
	if config == nil {
		return c.notConfigured(entity, "IsolationConfig "+v1alpha1.IsolationConfigName+" doesn't say who that is")
	}
	var all grant
	for _, peer := range config.Peers {
		switch {
		case peer.App != nil && peer.App.Namespaces != nil:
			all.add(peersOnly(compileApp(peer.App))...)
		case peer.CIDR != nil:
			all.add(peersOnly(compileCIDR(peer.CIDR))...)
		case peer.Entity == v1alpha1.ConfigEntityNodes:
			all.add(c.nodes(entity)...)
		}
	}
	return []grant{all}
}

// apiServer is a grant with the ports of the API servers.
func (c *compiler) apiServer() []grant {
	grants := endpointGrants(c.world.APIServer, nil)
	if len(grants) == 0 {
		return c.notConfigured(v1alpha1.EntityKubeAPIServer, "there is no EndpointSlice "+APIServerSlice.String()+" with a port")
	}
	return grants
}

// apiServerTunnels returns the further addresses of the nodes that API servers run
// on: what a node sends over a tunnel to the pods of another comes from the
// tunnel's address. Where several Nodes claim one address of an API server, it is unknown
// which of them runs it, and the claim counts for none.
func (c *compiler) apiServerTunnels() []networkingv1.NetworkPolicyPeer {
	claims := map[netip.Addr][]*corev1.Node{}
	for i := range c.world.Nodes {
		node := &c.world.Nodes[i]
		for _, address := range unique(nodeAddresses(*node)) {
			claims[address] = append(claims[address], node)
		}
	}
	var tunnels []netip.Addr
	for _, server := range unique(addressesOf(c.world.APIServer)) {
		switch nodes := claims[server]; len(nodes) {
		case 0:
		case 1:
			tunnels = append(tunnels, tunnelAddresses(*nodes[0])...)
		default:
			c.claimedTwice(server, nodes)
		}
	}
	return ipBlocks(tunnels)
}

func (c *compiler) claimedTwice(server netip.Addr, nodes []*corev1.Node) {
	names := make([]string, len(nodes))
	for i, node := range nodes {
		names[i] = node.Name
	}
	slices.Sort(names)
	c.unresolved(v1alpha1.ReasonEntityNotConfigured,
		"entity KubeAPIServer: Nodes %s and %s both have the API server's address %s, so the tunnel addresses of neither count", names[0], names[1], server)
}

// unique sorts addresses and leaves out duplicates.
func unique(addresses []netip.Addr) []netip.Addr {
	slices.SortFunc(addresses, netip.Addr.Compare)
	return slices.Compact(addresses)
}

// nodes returns the ranges that the IsolationConfig gives, and else what each Node
// says of itself.
func (c *compiler) nodes(entity v1alpha1.Entity) []grant {
	if ranges := c.world.Config.NodeCIDRs; len(ranges) > 0 {
		var peers []networkingv1.NetworkPolicyPeer
		for _, cidr := range slices.Sorted(slices.Values(ranges)) {
			peers = append(peers, compileCIDR(&v1alpha1.CIDRPeer{CIDR: cidr}))
		}
		return peersOnly(peers...)
	}
	var addresses []netip.Addr
	for _, node := range c.world.Nodes {
		addresses = append(addresses, nodeAddresses(node)...)
		addresses = append(addresses, tunnelAddresses(node)...)
	}
	if len(addresses) == 0 {
		return c.notConfigured(entity, "no Node has an address")
	}
	return peersOnly(ipBlocks(addresses)...)
}

func nodeAddresses(node corev1.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP || address.Type == corev1.NodeExternalIP {
			addresses = appendAddress(addresses, address.Address)
		}
	}
	return addresses
}

// tunnelAddresses returns the first address of each of the node's pod ranges.
// Flannel gives it to the node's end of the tunnel, and no pod gets it.
func tunnelAddresses(node corev1.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, text := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			addresses = append(addresses, prefix.Masked().Addr().Unmap())
		}
	}
	return addresses
}
