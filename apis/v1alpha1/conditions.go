package v1alpha1

// Condition types of an AppIsolation.
const (
	// ConditionAccepted is True when the spec is meaningful.
	ConditionAccepted = "Accepted"

	// ConditionProgrammed is True when the NetworkPolicy of this generation is
	// stored in the API server.
	ConditionProgrammed = "Programmed"

	// ConditionEnforced is True when every node that runs a selected pod holds
	// the rules of this generation in its kernel.
	ConditionEnforced = "Enforced"

	// ConditionReady is True when Accepted, Programmed and Enforced are; else it
	// repeats the first of them that isn't.
	ConditionReady = "Ready"
)

// Reasons of AppIsolation conditions and of the failures in its status.
const (
	ReasonAccepted         = "Accepted"
	ReasonInvalid          = "Invalid"
	ReasonProgrammed       = "Programmed"
	ReasonDisabled         = "Disabled"
	ReasonNameConflict     = "NameConflict"
	ReasonApplyFailed      = "ApplyFailed"
	ReasonAllNodesEnforced = "AllNodesEnforced"
	ReasonNoSelectedPods   = "NoSelectedPods"
	ReasonNotProgrammed    = "NotProgrammed"
	ReasonProgressing      = "Progressing"
	ReasonNodeFailed       = "NodeFailed"
	ReasonAgentMissing     = "AgentMissing"
	ReasonAgentStale       = "AgentStale"
)
