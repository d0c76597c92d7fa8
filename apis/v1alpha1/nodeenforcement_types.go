package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// MaxReportedPolicies is the largest number of policies that one
// NodeEnforcement lists. A node that enforces more sets Truncated.
const MaxReportedPolicies = 500

// MaxReportedPods is the largest number of pods that one NodeEnforcement lists. A node
// with more isolated pods sets Truncated.
const MaxReportedPods = 1000

// Condition types of a NodeEnforcement.
const (
	// NodeConditionDataplaneSynced is True while the node's kernel holds the
	// rules of everything that the agent has seen from the API server.
	NodeConditionDataplaneSynced = "DataplaneSynced"

	// NodeConditionDegraded is True while the node can't enforce something that
	// the API server holds, though its agent works: its message says what, and what to
	// do. Of several reasons it has the gravest, and the message names all. No policy
	// counts as enforced on the node meanwhile.
	NodeConditionDegraded = "Degraded"

	// NodeConditionPodStartGuarded is True while an address of one of the node's
	// new pods is closed until the pod's rules are in force.
	NodeConditionPodStartGuarded = "PodStartGuarded"

	// NodeConditionPolicyEngineConflict is True while rules of another
	// NetworkPolicy engine are on the node. Moat's own are in force all the same.
	NodeConditionPolicyEngineConflict = "PolicyEngineConflict"

	// NodeConditionWithinBudget is False while policies that select a pod of the node
	// would become too much in its kernel. Their pods are closed, unless the agents only
	// report it; no other policy is affected.
	NodeConditionWithinBudget = "WithinBudget"
)

// Reasons of NodeConditionDegraded. Each is also the reason of an event of the Node
// when it comes, and a value of the label reason of the metric moat_degraded.
const (
	// NodeReasonBridgeNetfilterOff: packets between two pods of the node don't pass
	// iptables, since the node doesn't show it what its bridges forward.
	NodeReasonBridgeNetfilterOff = "BridgeNetfilterOff"

	// NodeReasonProxyModeIPVS: Services are served by IPVS. What goes through a Service
	// to a pod of the same node doesn't pass FORWARD, where ingress rules are.
	NodeReasonProxyModeIPVS = "ProxyModeIPVS"

	// NodeReasonStorageUnreadable: the API server can't decode an object that it
	// stores, and so tells of no change of that kind.
	NodeReasonStorageUnreadable = "StorageUnreadable"

	// NodeReasonConnectionsUncut: the kernel's table of connections can't be read.
	// Connections from before a policy that forbids them go on.
	NodeReasonConnectionsUncut = "ConnectionsUncut"
)

// Reasons of other NodeEnforcement conditions, and of failures.
const (
	NodeReasonSynced                  = "Synced"
	NodeReasonSyncFailed              = "SyncFailed"
	NodeReasonHealthy                 = "Healthy"
	NodeReasonIptablesMissing         = "IptablesMissing"
	NodeReasonPermissionDenied        = "PermissionDenied"
	NodeReasonRestoreFailed           = "RestoreFailed"
	NodeReasonPolicyUnreadable        = "PolicyUnreadable"
	NodeReasonRuntimeConnected        = "RuntimeConnected"
	NodeReasonGuardOnly               = "GuardOnly"
	NodeReasonNRIUnavailable          = "NRIUnavailable"
	NodeReasonRuntimeTellsNoAddresses = "RuntimeTellsNoAddresses"
	NodeReasonNoPodCIDRs              = "NoPodCIDRs"
	NodeReasonPodsOutsidePodCIDRs     = "PodsOutsidePodCIDRs"
	NodeReasonOff                     = "Off"
	NodeReasonLockUnavailable         = "LockUnavailable"
	NodeReasonModuleMissing           = "KernelModuleMissing"
	NodeReasonOtherEngineFound        = "OtherEngineFound"
	NodeReasonNoOtherEngine           = "NoOtherEngine"
	NodeReasonTooExpensive            = "TooExpensive"
	NodeReasonThrottled               = "Throttled"
	NodeReasonAffordable              = "Affordable"
	NodeReasonBudgetNearlyUsed        = "BudgetNearlyUsed"
)

// AllowSpoofingLabel is the label that a namespace has, with the value "true", whose pods may
// send packets with a source address that isn't theirs: virtual routers, load balancers, VPN gateways,
// clusters in pods.
const AllowSpoofingLabel = "isolation.moat.dev/allow-spoofing"

// TaskLabel says what a pod of the agents' DaemonSet does. A pod without it enforces.
const TaskLabel = "isolation.moat.dev/task"

// Values of TaskLabel.
const (
	TaskEnforce = "enforce"
	// TaskCleanup is of a pod that enforces nothing: while Moat is uninstalled it has
	// removed Moat's rules from its node, or is about to.
	TaskCleanup = "cleanup"
)

// AgentAbsentTaint is the key of the taint, with the effect NoSchedule, that the
// operator puts on a node where new pods have no network: the guard of pod starts
// stands, and no agent is there to open it.
const AgentAbsentTaint = "isolation.moat.dev/agent-absent"

// Reasons of the events on a Node when that taint comes and when it goes.
const (
	EventReasonNoAgent      = "NoAgentNoNewPods"
	EventReasonNewPodsAgain = "NewPodsAgain"
)

// ReleaseMarker is the name of the ConfigMap that lives as long as Moat's release,
// in its namespace. No update changes it; where it is deleted, Moat is removed.
const ReleaseMarker = "moat-release"

// EventReasonPodNotProgrammed is the reason of the event on a pod whose start
// could not be held until its rules were in force.
const EventReasonPodNotProgrammed = "PodNotProgrammed"

// EventReasonUnusableAddress is the reason of the event on a pod whose status shows
// addresses that no pod can have, or those of a node. They are left out.
const EventReasonUnusableAddress = "UnusableAddress"

// EventReasonRecovered is the reason of the event of a Node when a reason of
// NodeConditionDegraded is over, which its note names.
const EventReasonRecovered = "Recovered"

// NodeEnforcement says what the dataplane of one node enforces. It is named
// after its Node and owned by it. The node's agent writes it, only when something
// changed: it carries no heartbeat. So it is the agent's last word. Whether that
// agent is still at work, the operator writes into status.agent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=nodeenf,categories=isolation
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.agent.state`,description="Whether an agent is at work on the node, from the operator. The other columns are the agent's last word, true while this one is Ready."
// +kubebuilder:printcolumn:name="Synced",type=string,JSONPath=`.status.conditions[?(@.type=="DataplaneSynced")].status`,description="The agent's last word on whether the kernel holds all rules; as old as the agent where AGENT isn't Ready."
// +kubebuilder:printcolumn:name="Degraded",type=string,JSONPath=`.status.conditions[?(@.type=="Degraded")].status`,description="The agent's last word on whether the node can't filter everything."
// +kubebuilder:printcolumn:name="Backend",type=string,JSONPath=`.status.backend`
// +kubebuilder:printcolumn:name="Policies",type=integer,JSONPath=`.status.policyCount`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type NodeEnforcement struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// status is what the node's agent last reported, and the operator's word on
	// that agent.
	// +optional
	Status NodeEnforcementStatus `json:"status,omitzero"`
}

// NodeEnforcementStatus is one agent's report. The field agent is the operator's.
type NodeEnforcementStatus struct {
	// agent says whether an agent is at work on the node. The operator writes it;
	// every other field is the agent's last word. It is missing until an operator
	// has seen the report.
	// +optional
	Agent *NodeAgent `json:"agent,omitempty"`

	// nodeUID is the metadata.uid of the Node that the report is about. A report about an
	// earlier Node of this name proves nothing. Agents of older releases leave it empty, and list
	// no pods.
	// +optional
	NodeUID types.UID `json:"nodeUID,omitempty"`

	// bootID is the status.nodeInfo.bootID of that Node. A report from before the node's
	// last boot proves nothing: the kernel holds no rule when it starts.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	BootID string `json:"bootID,omitempty"`

	// backend is the iptables variant in use: iptables-nft or iptables-legacy.
	// Empty until the agent has found one.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Backend string `json:"backend,omitempty"`

	// policies lists each NetworkPolicy that selects a pod of this node and whose
	// rules, at that generation, are in the node's kernel. A policy that selects
	// a local pod and isn't listed is not enforced here yet.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Policies []EnforcedPolicy `json:"policies,omitempty"`

	// policyCount is the number of enforced policies, also where the list is
	// truncated.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PolicyCount int32 `json:"policyCount"`

	// pods lists the pods of this node in the namespaces of these policies, as the agent
	// saw them when it put the rules in force: each is a digest of the pod's uid and labels,
	// in order. A pod that is new, or has new labels, isn't listed until the agent has
	// seen it. Pods that are gone may be listed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MaxLength=16
	Pods []string `json:"pods,omitempty"`

	// truncated is true where more policies are enforced, or more pods selected, than
	// the lists hold.
	// +optional
	Truncated bool `json:"truncated,omitempty"`

	// failures names each policy that selects a pod of this node and could not
	// be put in force as written. The pods of such a policy are closed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	Failures []PolicyFailure `json:"failures,omitempty"`

	// conditions are DataplaneSynced, Degraded, PodStartGuarded,
	// PolicyEngineConflict and WithinBudget.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeAgent says whether an agent is at work on a node.
type NodeAgent struct {
	// state is Ready, NotReady, Missing, Excluded or Unknown. Ready: the node's agent
	// pod is Ready, and corrects this report when something changes. NotReady: there
	// is such a pod and it isn't Ready. Missing: there is none, though the agents'
	// DaemonSet wants one. Excluded: there is none, and the DaemonSet wants none
	// here. Unknown: the Node itself isn't Ready, so that nothing is known of its pods.
	// +required
	State AgentState `json:"state"`

	// since is when the state was seen first. It stays when NotReady becomes Missing,
	// or Missing becomes NotReady: since then no agent was Ready.
	// +required
	Since metav1.Time `json:"since"`
}

// AgentState says whether an agent is at work on a node.
// +kubebuilder:validation:Enum=Ready;NotReady;Missing;Excluded;Unknown
type AgentState string

// The states of a node's agent.
const (
	AgentReady    AgentState = "Ready"
	AgentNotReady AgentState = "NotReady"
	AgentMissing  AgentState = "Missing"
	AgentExcluded AgentState = "Excluded"
	AgentUnknown  AgentState = "Unknown"
)

// EnforcedPolicy names one generation of one NetworkPolicy.
type EnforcedPolicy struct {
	// uid is the policy's metadata.uid.
	// +required
	UID types.UID `json:"uid"`

	// generation is the policy's metadata.generation.
	// +required
	Generation int64 `json:"generation"`
}

// PolicyFailure says why one NetworkPolicy is not in force as written.
type PolicyFailure struct {
	// uid is the policy's metadata.uid.
	// +required
	UID types.UID `json:"uid"`

	// reason is a CamelCase word for programs.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason"`

	// message is for people: what is wrong and where, at most 256 characters.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Message string `json:"message,omitempty"`
}

// NodeEnforcementList is a list of NodeEnforcement.
//
// +kubebuilder:object:root=true
type NodeEnforcementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodeEnforcement `json:"items"`
}
