package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IsolationConfigName is the name of the one IsolationConfig.
const IsolationConfigName = "default"

// IsolationConfig says what the entities of AppIsolations are in this cluster.
// There is one, named default. Where it is missing, or doesn't say what an entity
// is, the entity allows nothing, and the AppIsolations that name it say so.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,categories=isolation
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="metadata.name: the one IsolationConfig of a cluster is named default"
type IsolationConfig struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the entities are.
	// +required
	Spec IsolationConfigSpec `json:"spec"`
}

// IsolationConfigSpec is what the entities are in this cluster.
type IsolationConfigSpec struct {
	// dns is the entity DNS, which implicit.dns allows too.
	// +optional
	DNS *DNSConfig `json:"dns,omitempty"`

	// ingressControllers is the entity IngressControllers.
	// +optional
	IngressControllers *EntityConfig `json:"ingressControllers,omitempty"`

	// monitoring is the entity Monitoring.
	// +optional
	Monitoring *EntityConfig `json:"monitoring,omitempty"`

	// clusterCIDRs lists the ranges of the cluster's pods, Services and nodes. The
	// entity Internet leaves them out, beside all private and special ranges, so
	// that only public ranges have to be listed.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked()",message="not a range of addresses: write address/prefix-length with no bits set after the prefix, such as 172.17.0.0/16 or 2001:db8::/32"
	// +kubebuilder:validation:items:XValidation:rule="!isCIDR(self) || cidr(self).prefixLength() > 0",message="the range of all addresses would leave no Internet: list the cluster's own ranges"
	ClusterCIDRs []string `json:"clusterCIDRs,omitempty"`

	// nodeCIDRs lists the ranges of the nodes' addresses, and is the entity Nodes.
	// Absent or empty: the addresses of each Node object, with those that its
	// side of the pod network has.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked()",message="not a range of addresses: write address/prefix-length with no bits set after the prefix, such as 172.17.0.0/16 or 2001:db8::/32"
	NodeCIDRs []string `json:"nodeCIDRs,omitempty"`
}

// EntityConfig says which peers an entity stands for.
type EntityConfig struct {
	// peers are what the entity stands for, at least one.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Peers []ConfigPeer `json:"peers"`
}

// DNSConfig says which peers the entity DNS stands for, and at which ports they are asked.
type DNSConfig struct {
	EntityConfig `json:",inline"`

	// ports lists the ports of DNS, which are those of its pods and not of the
	// Service in front of them. Absent: 53 of UDP and of TCP.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	// +default=[{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
	Ports []Port `json:"ports,omitempty"`
}

// ConfigEntity names an entity that others may be made of.
// +kubebuilder:validation:Enum=Nodes
type ConfigEntity string

// ConfigEntityNodes is every node of the cluster: hostNetwork pods have no other
// address than their node's.
const ConfigEntityNodes ConfigEntity = "Nodes"

// ConfigPeer is a part of an entity: exactly one of its members is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.app), has(self.cidr), has(self.entity)].filter(x, x).size() == 1",message="a peer of an entity has exactly one of app, cidr and entity; write two peers where both are meant"
// +kubebuilder:validation:XValidation:rule="!has(self.app) || has(self.app.namespaces)",message="namespaces is required here, where there is no namespace of one's own: write names, or selector: {} for every namespace",fieldPath=".app"
type ConfigPeer struct {
	// app selects pods by their labels, in the namespaces that it has to name.
	// hostNetwork pods are never peers: see entity.
	// +optional
	App *AppPeer `json:"app,omitempty"`

	// cidr is a range of addresses.
	// +optional
	CIDR *CIDRPeer `json:"cidr,omitempty"`

	// entity is Nodes, for what runs with hostNetwork.
	// +optional
	Entity ConfigEntity `json:"entity,omitempty"`
}

// IsolationConfigList is a list of IsolationConfig.
//
// +kubebuilder:object:root=true
type IsolationConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []IsolationConfig `json:"items"`
}
