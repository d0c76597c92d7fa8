package v1alpha1

import "k8s.io/apimachinery/pkg/util/intstr"

// The validation below refuses at `kubectl apply` everything that the API
// server would refuse in the generated NetworkPolicy, with the path of the
// user's own field. The CEL cost that the API server allows per CRD is the
// reason for the bounds on lists, maps and strings.

// Entity names a peer that is neither an application nor a CIDR. What DNS, Nodes,
// IngressControllers, Monitoring and Internet are in this cluster is said by the
// IsolationConfig.
// +kubebuilder:validation:Enum=Anywhere;SameNamespace;AllNamespaces;Internet;DNS;KubeAPIServer;Nodes;IngressControllers;Monitoring
type Entity string

const (
	// EntityAnywhere is every address, inside the cluster and outside.
	EntityAnywhere Entity = "Anywhere"
	// EntitySameNamespace is every pod of the AppIsolation's namespace.
	EntitySameNamespace Entity = "SameNamespace"
	// EntityAllNamespaces is every pod of the cluster.
	EntityAllNamespaces Entity = "AllNamespaces"
	// EntityInternet is every address that is neither private nor special nor in
	// the IsolationConfig's clusterCIDRs.
	EntityInternet Entity = "Internet"
	// EntityDNS is the cluster's DNS, at its own ports where it is asked.
	EntityDNS Entity = "DNS"
	// EntityKubeAPIServer is the API server, as the EndpointSlice kubernetes in the
	// namespace default names it, at its own ports where it is asked.
	EntityKubeAPIServer Entity = "KubeAPIServer"
	// EntityNodes is every node of the cluster.
	EntityNodes Entity = "Nodes"
	// EntityIngressControllers is what brings requests from outside.
	EntityIngressControllers Entity = "IngressControllers"
	// EntityMonitoring is what scrapes metrics and probes.
	EntityMonitoring Entity = "Monitoring"
)

// Peer is the other end of allowed traffic: exactly one of its members is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.app), has(self.service), has(self.cidr), has(self.entity)].filter(x, x).size() == 1",message="a peer has exactly one of app, service, cidr and entity; write two peers where both are meant"
type Peer struct {
	// app selects pods by their labels.
	// +optional
	App *AppPeer `json:"app,omitempty"`

	// service is what a Service leads to: as a destination its endpoints at their
	// ports, as a source its endpoints.
	// +optional
	Service *ServicePeer `json:"service,omitempty"`

	// cidr is a range of addresses.
	// +optional
	CIDR *CIDRPeer `json:"cidr,omitempty"`

	// entity is a peer by name.
	// +optional
	Entity Entity `json:"entity,omitempty"`
}

// ServicePeer names a Service. With a selector, it stands for the pods that the
// selector selects, and for the Service's target ports; without one, for the
// addresses and ports in its EndpointSlices. Changes of both are followed. A
// Service of type ExternalName leads to a name and not to addresses, and so to
// no peer.
//
// A user who may change that Service decides which pods the peer is.
type ServicePeer struct {
	// name is the Service's name.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// namespace is the Service's namespace. Absent: the AppIsolation's.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Namespace string `json:"namespace,omitempty"`
}

// AppPeer selects pods of this namespace or of others; {} is every pod of this
// namespace. hostNetwork pods are never peers.
type AppPeer struct {
	LabelSelector `json:",inline"`

	// namespaces says where the pods are. Absent: the AppIsolation's namespace.
	// +optional
	Namespaces *NamespacePeer `json:"namespaces,omitempty"`
}

// NamespacePeer selects namespaces: exactly one of its members is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.names) != has(self.selector)",message="namespaces has exactly one of names and selector; selector: {} is every namespace"
type NamespacePeer struct {
	// names lists namespaces by name.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Names []string `json:"names,omitempty"`

	// selector selects namespaces by their labels. {} is every namespace.
	// +optional
	Selector *LabelSelector `json:"selector,omitempty"`
}

// LabelSelector selects objects by their labels: all of its requirements have
// to hold, and {} selects every object. It is metav1.LabelSelector with bounds,
// which CEL validation needs.
//
// +structType=atomic
type LabelSelector struct {
	// matchLabels lists labels that an object has to carry.
	// +optional
	// +mapType=atomic
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 317 && !format.qualifiedName().validate(k).hasValue())",message="a label key is [prefix/]name: name at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit; prefix a DNS name"
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`

	// matchExpressions lists requirements on labels.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelValue is the value of a label; it may be empty.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$`
type LabelValue string

// LabelOperator relates a label key to values.
// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
type LabelOperator string

const (
	// LabelIn holds for objects that carry the key with one of the values.
	LabelIn LabelOperator = "In"
	// LabelNotIn holds for objects that don't carry the key with any of the values.
	LabelNotIn LabelOperator = "NotIn"
	// LabelExists holds for objects that carry the key.
	LabelExists LabelOperator = "Exists"
	// LabelDoesNotExist holds for objects that don't carry the key.
	LabelDoesNotExist LabelOperator = "DoesNotExist"
)

// LabelSelectorRequirement relates a label key to values.
//
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['In', 'NotIn']) || (has(self.values) && size(self.values) > 0)",message="operator In and NotIn need at least one value",fieldPath=".values"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || size(self.values) == 0",message="operator Exists and DoesNotExist take no values: remove them, or use In or NotIn",fieldPath=".values"
type LabelSelectorRequirement struct {
	// key is the label key.
	// +required
	// +kubebuilder:validation:MaxLength=317
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`
	// +kubebuilder:validation:XValidation:rule="self.indexOf('/') <= 253",message="the prefix of a label key has at most 253 characters"
	Key string `json:"key"`

	// operator is In, NotIn, Exists or DoesNotExist.
	// +required
	Operator LabelOperator `json:"operator"`

	// values lists at least one value for In and NotIn, and none for Exists and
	// DoesNotExist.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Values []LabelValue `json:"values,omitempty"`
}

// CIDRPeer is a range of addresses without some ranges inside of it. It matches
// the addresses of pods too.
//
// A range whose address has bits set after the prefix, such as 10.0.0.1/8, is
// refused: it is nearly always a slip for 10.0.0.1/32, and rounding it to
// 10.0.0.0/8 would open far more than was meant. NetworkPolicy refuses it too,
// from Kubernetes 1.36 on.
//
// +kubebuilder:validation:XValidation:rule="!has(self.except) || !isCIDR(self.cidr) || self.except.all(e, !isCIDR(e) || (cidr(self.cidr).containsCIDR(e) && cidr(self.cidr).prefixLength() < cidr(e).prefixLength()))",message="each range in except lies inside of cidr and is smaller than it; remove the others",fieldPath=".except"
type CIDRPeer struct {
	// cidr is the range, such as 172.17.0.0/16 or 2001:db8::/32.
	// +required
	// +kubebuilder:validation:MaxLength=43
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="not a range of addresses: write address/prefix-length, such as 172.17.0.0/16 or 2001:db8::/32; one address is 192.0.2.7/32"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="bits are set after the prefix length: 10.0.0.1/8 is written 10.0.0.0/8 where the range is meant, and 10.0.0.1/32 where the one address is"
	CIDR string `json:"cidr"`

	// except lists ranges inside of cidr that this peer doesn't allow. Another
	// peer may still allow them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="not a range of addresses: write address/prefix-length, such as 172.17.1.0/24 or 2001:db8:1::/48; one address is 192.0.2.7/32"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self) == cidr(self).masked()",message="bits are set after the prefix length: 10.0.0.1/8 is written 10.0.0.0/8 where the range is meant, and 10.0.0.1/32 where the one address is"
	Except []string `json:"except,omitempty"`
}

// Protocol is a transport protocol.
// +kubebuilder:validation:Enum=TCP;UDP;SCTP
type Protocol string

// Port is one port, one range of ports, or every port of a protocol.
//
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || has(self.port)",message="endPort needs port, the first port of the range",fieldPath=".endPort"
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || !has(self.port) || type(self.port) == int",message="a range needs a number in port; remove endPort, or write the number of the port",fieldPath=".endPort"
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || !has(self.port) || type(self.port) != int || self.endPort >= self.port",message="endPort is the last port of the range, so at least as large as port",fieldPath=".endPort"
type Port struct {
	// protocol is TCP, UDP or SCTP.
	// +optional
	// +default="TCP"
	Protocol Protocol `json:"protocol,omitempty"`

	// port is a number or the name of a container port. Absent: every port of
	// the protocol.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="type(self) != int || (self >= 1 && self <= 65535)",message="a port number is between 1 and 65535"
	// +kubebuilder:validation:XValidation:rule="type(self) != string || (self.matches('^[a-z0-9]+(-[a-z0-9]+)*$') && self.matches('[a-z]'))",message="a port name has at most 15 lower-case letters, digits and single '-' between them, and at least one letter; a number is written without quotes"
	Port *intstr.IntOrString `json:"port,omitempty"`

	// endPort makes a range that begins at port, which has to be a number, and
	// includes endPort.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	EndPort *int32 `json:"endPort,omitempty"`
}
