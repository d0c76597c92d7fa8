package services

import corev1 "k8s.io/api/core/v1"

// What a policy may see in place of an address.
const (
	anyone    = "(anyone)"     // it lets all pass
	neverSent = "(never sent)" // no packet gets there
)

// outcome is what becomes of a connection.
type outcome struct {
	policy string // the source that ingress policies see
	server string // the source that the server sees
}

var never = outcome{neverSent, ""}

// destination is how a client names a Service or a pod behind it.
type destination string

const (
	toClusterIP destination = "ClusterIP"
	toNodePort  destination = "NodePort"
	toBalancer  destination = "load balancer"
	toPod       destination = "pod address"
)

// What egress rules see as the destination.
const (
	asSent     = "as sent"
	asEndpoint = "the endpoint"
	asBoth     = "(both)" // nothing isolates
)

// row is a kind of connection, and what should become of it: here is what
// docs/semantics.md says.
type row struct {
	name     string
	from     string
	to       destination
	external corev1.ServiceExternalTrafficPolicy
	// via is the node that the connection gets to first.
	via int
	// same is what happens if the endpoint is on that node, and other if not.
	same, other outcome
	egress      string // of pods
}

const (
	extCluster = corev1.ServiceExternalTrafficPolicyCluster
	extLocal   = corev1.ServiceExternalTrafficPolicyLocal
)

var rows = []row{
	{"pod -> ClusterIP", "client-1", toClusterIP, extCluster, translator, outcome{"client-1", "client-1"}, outcome{"client-1", "client-1"}, asEndpoint},
	{"pod -> ClusterIP, masqueradeAll", "client-2", toClusterIP, extCluster, masqueradeAll, outcome{"client-2", "bridge-2"}, outcome{"node-2", "node-2"}, asEndpoint},
	{"outside -> NodePort, Cluster", "world", toNodePort, extCluster, translator, outcome{"world", "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"outside -> NodePort, Local", "world", toNodePort, extLocal, translator, outcome{"world", "world"}, never, ""},
	{"outside -> load balancer, Cluster", "world", toBalancer, extCluster, translator, outcome{"world", "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"outside -> load balancer, Local", "world", toBalancer, extLocal, translator, outcome{"world", "world"}, never, ""},
	{"pod -> its node's NodePort, Cluster", "client-1", toNodePort, extCluster, translator, outcome{"client-1", "bridge-1"}, outcome{"node-1", "node-1"}, asEndpoint},
	{"pod -> its node's NodePort, Local", "client-1", toNodePort, extLocal, translator, outcome{"client-1", "client-1"}, outcome{"client-1", "client-1"}, asEndpoint},
	{"pod -> load balancer, Cluster", "client-1", toBalancer, extCluster, translator, outcome{"client-1", "bridge-1"}, outcome{"node-1", "node-1"}, asEndpoint},
	{"pod -> load balancer, Local", "client-1", toBalancer, extLocal, translator, outcome{"client-1", "client-1"}, outcome{"client-1", "client-1"}, asEndpoint},
	{"pod -> another node's NodePort, Cluster", "client-3", toNodePort, extCluster, translator, outcome{"node-3", "bridge-1"}, outcome{"node-1", "node-1"}, asSent},
	{"pod -> another node's NodePort, Local", "client-3", toNodePort, extLocal, translator, outcome{"node-3", "node-3"}, never, asSent},
	{"node -> ClusterIP", "node-1", toClusterIP, extCluster, translator, outcome{anyone, "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"node -> its own NodePort, Cluster", "node-1", toNodePort, extCluster, translator, outcome{anyone, "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"node -> its own NodePort, Local", "node-1", toNodePort, extLocal, translator, outcome{anyone, "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"node -> load balancer, Cluster", "node-1", toBalancer, extCluster, translator, outcome{anyone, "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"node -> load balancer, Local", "node-1", toBalancer, extLocal, translator, outcome{anyone, "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"node -> pod address", "node-1", toPod, extCluster, translator, outcome{anyone, "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"outside -> ClusterIP", "world", toClusterIP, extCluster, translator, outcome{"world", "bridge-1"}, outcome{"node-1", "node-1"}, ""},
	{"outside -> pod address", "world", toPod, extCluster, translator, outcome{"world", "world"}, outcome{"node-1", "node-1"}, ""},
}
