package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Mode says what Moat does with an AppIsolation.
//
// +kubebuilder:validation:Enum=Enforce;Disabled;Audit
// +kubebuilder:validation:XValidation:rule="self != 'Audit'",message="Audit is reserved for a later version, and nothing would be in force: use Enforce, or Disabled to remove the policy"
type Mode string

const (
	// ModeEnforce puts the isolation in force. It is the default.
	ModeEnforce Mode = "Enforce"
	// ModeDisabled removes the generated policy and keeps the object.
	ModeDisabled Mode = "Disabled"
	// ModeAudit is reserved: it names what is planned, and is refused.
	ModeAudit Mode = "Audit"
)

// Direction is a direction of traffic, seen from the selected pods.
// +kubebuilder:validation:Enum=Ingress;Egress
type Direction string

const (
	// DirectionIngress is traffic to the selected pods.
	DirectionIngress Direction = "Ingress"
	// DirectionEgress is traffic from the selected pods.
	DirectionEgress Direction = "Egress"
)

// AppIsolation closes the pods of one application and lists what may still
// reach them and what they may reach.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=appiso,categories=isolation
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.selectedPods`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.enforcement.summary`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 246",message="metadata.name: at most 246 characters, since the generated NetworkPolicy is named appiso-NAME"
type AppIsolation struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the isolation that the application's team wants.
	// +required
	Spec AppIsolationSpec `json:"spec"`

	// status is what Moat has made of it.
	// +optional
	Status AppIsolationStatus `json:"status,omitzero"`
}

// AppIsolationSpec is the isolation that a team wants for its application.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ingress) || size(self.ingress) == 0 || 'Ingress' in self.directions",message="ingress: rules need 'Ingress' in directions",fieldPath=".ingress"
// +kubebuilder:validation:XValidation:rule="!has(self.egress) || size(self.egress) == 0 || 'Egress' in self.directions",message="egress: rules need 'Egress' in directions",fieldPath=".egress"
type AppIsolationSpec struct {
	// mode is Enforce or Disabled: the policy is removed and the object stays.
	// Audit is reserved for a later version and refused.
	// +optional
	// +default="Enforce"
	Mode Mode `json:"mode,omitempty"`

	// selector selects the application's pods in the namespace of the
	// AppIsolation. The empty selector {} selects every pod of the namespace.
	// hostNetwork pods are never selected.
	// +required
	Selector *LabelSelector `json:"selector"`

	// directions lists what is closed by default. It is never inferred from the
	// rules.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	Directions []Direction `json:"directions"`

	// ingress lists what may reach the selected pods. Absent or empty: nothing,
	// where directions has Ingress.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Ingress []IngressRule `json:"ingress,omitempty"`

	// egress lists what the selected pods may reach. Absent or empty: nothing,
	// where directions has Egress.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=32
	Egress []EgressRule `json:"egress,omitempty"`

	// implicit says what is allowed without a rule of its own.
	// +optional
	// +default={}
	Implicit Implicit `json:"implicit,omitzero"`
}

// ImplicitAction says whether something is allowed without a rule of its own.
// +kubebuilder:validation:Enum=Allow;Deny
type ImplicitAction string

const (
	// ImplicitAllow allows it.
	ImplicitAllow ImplicitAction = "Allow"
	// ImplicitDeny leaves it to the rules.
	ImplicitDeny ImplicitAction = "Deny"
)

// Implicit says what is allowed without a rule of its own.
type Implicit struct {
	// dns is Allow or Deny. Allow: where directions has Egress, the selected pods
	// may ask the cluster's DNS, as if a rule had the entity DNS. Deny: they may
	// not, unless a rule allows it.
	// +optional
	// +default="Allow"
	DNS ImplicitAction `json:"dns,omitempty"`
}

// IngressRule allows traffic from any of its peers to any of its ports.
type IngressRule struct {
	// name identifies the rule in this list.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// from lists the peers, at least one. "Anyone" is entity: Anywhere.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="a rule needs at least one peer; write entity: Anywhere where anyone is meant"
	From []Peer `json:"from"`

	// ports lists the ports of the selected pods. Absent or empty: every port
	// of every protocol, and traffic without ports such as ICMP.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Ports []Port `json:"ports,omitempty"`
}

// EgressRule allows traffic to any of its ports at any of its peers.
//
// +kubebuilder:validation:XValidation:rule="!has(self.ports) || size(self.ports) == 0 || !self.to.exists(p, has(p.service) || (has(p.entity) && p.entity in ['DNS', 'KubeAPIServer']))",message="a service, DNS and KubeAPIServer bring their own ports: remove ports, or move the peers that need them to a rule of their own",fieldPath=".ports"
type EgressRule struct {
	// name identifies the rule in this list.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name"`

	// to lists the peers, at least one. "Anyone" is entity: Anywhere.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="size(self) > 0",message="a rule needs at least one peer; write entity: Anywhere where anyone is meant"
	To []Peer `json:"to"`

	// ports lists the ports of the peers, which are those of pods and not of the
	// Services in front of them. Absent or empty: every port of every protocol,
	// and traffic without ports such as ICMP. The peers service, DNS and
	// KubeAPIServer bring their own ports, and a rule with one of them has none.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Ports []Port `json:"ports,omitempty"`
}

// AppIsolationStatus is what Moat has made of an AppIsolation.
type AppIsolationStatus struct {
	// observedGeneration is the generation that this status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// selectedPods is the number of pods that the selector selects and that are
	// scheduled, have not ended and are not hostNetwork.
	// +optional
	SelectedPods int32 `json:"selectedPods"`

	// policy is the generated NetworkPolicy. Absent while there is none.
	// +optional
	Policy *PolicyReference `json:"policy,omitempty"`

	// enforcement counts nodes.
	// +optional
	Enforcement EnforcementSummary `json:"enforcement,omitzero"`

	// failures names at most ten nodes that don't enforce the policy, and why.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Failures []NodeFailure `json:"failures,omitempty"`

	// conditions are Accepted, ResolvedRefs, Programmed, Enforced, Exclusive,
	// Overlapping and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PolicyReference names one generation of the generated NetworkPolicy.
type PolicyReference struct {
	// name is the policy's name, in the namespace of the AppIsolation.
	// +required
	Name string `json:"name"`
	// uid is the policy's metadata.uid.
	// +required
	UID types.UID `json:"uid"`
	// generation is the policy's metadata.generation.
	// +required
	Generation int64 `json:"generation"`
}

// EnforcementSummary counts the nodes that run a selected pod.
type EnforcementSummary struct {
	// summary is currentNodes/desiredNodes, for people.
	// +optional
	Summary string `json:"summary,omitempty"`
	// desiredNodes is the number of nodes that run a selected pod.
	// +optional
	DesiredNodes int32 `json:"desiredNodes"`
	// currentNodes is the number of those that hold this generation.
	// +optional
	CurrentNodes int32 `json:"currentNodes"`
	// failedNodes is the number of those that report a failure of it.
	// +optional
	FailedNodes int32 `json:"failedNodes"`
	// staleNodes is the number of those whose agent is missing or not ready.
	// +optional
	StaleNodes int32 `json:"staleNodes"`
}

// NodeFailure says why one node doesn't enforce the policy.
type NodeFailure struct {
	// nodeName is the node's name.
	// +required
	NodeName string `json:"nodeName"`
	// reason is a CamelCase word for programs.
	// +required
	Reason string `json:"reason"`
	// message is for people, at most 256 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// AppIsolationList is a list of AppIsolation.
//
// +kubebuilder:object:root=true
type AppIsolationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AppIsolation `json:"items"`
}
