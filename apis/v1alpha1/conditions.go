package v1alpha1

// Condition types of an AppIsolation.
const (
	// ConditionAccepted is True when the spec is meaningful.
	ConditionAccepted = "Accepted"

	// ConditionResolvedRefs is True when every Service and entity that the spec
	// names exists. One that doesn't allows nothing.
	ConditionResolvedRefs = "ResolvedRefs"

	// ConditionProgrammed is True when the NetworkPolicy of this generation is
	// stored in the API server.
	ConditionProgrammed = "Programmed"

	// ConditionEnforced is True when every node that runs a selected pod holds
	// the rules of this generation in its kernel.
	ConditionEnforced = "Enforced"

	// ConditionExclusive is True when no other policy allows more to the same
	// pods.
	ConditionExclusive = "Exclusive"

	// ConditionOverlapping is True when another AppIsolation selects some of the
	// same pods, which is legal: what either allows is allowed.
	ConditionOverlapping = "Overlapping"

	// ConditionReady is True when Accepted, Programmed and Enforced are; else it
	// repeats the first of them that isn't.
	ConditionReady = "Ready"
)

// Reasons of the conditions of AppIsolations and PolicyEnforcements
// and of the failures in their status.
const (
	ReasonAccepted               = "Accepted"
	ReasonInvalid                = "Invalid"
	ReasonResolved               = "Resolved"
	ReasonServiceNotFound        = "ServiceNotFound"
	ReasonServiceUnsupported     = "ServiceUnsupported"
	ReasonEntityNotConfigured    = "EntityNotConfigured"
	ReasonProgrammed             = "Programmed"
	ReasonDisabled               = "Disabled"
	ReasonNameConflict           = "NameConflict"
	ReasonApplyFailed            = "ApplyFailed"
	ReasonAllNodesEnforced       = "AllNodesEnforced"
	ReasonNoSelectedPods         = "NoSelectedPods"
	ReasonNotProgrammed          = "NotProgrammed"
	ReasonProgressing            = "Progressing"
	ReasonNodeFailed             = "NodeFailed"
	ReasonAgentMissing           = "AgentMissing"
	ReasonAgentStale             = "AgentStale"
	ReasonReportingOff           = "ReportingOff"
	ReasonOnlyPolicy             = "OnlyPolicy"
	ReasonWidenedByOtherPolicies = "WidenedByOtherPolicies"
	ReasonNoOverlap              = "NoOverlap"
	ReasonOtherAppIsolations     = "OtherAppIsolations"
)
