package policystore

import "errors"

// ErrOmitted is why a policy is Omitted.
var ErrOmitted = errors.New("the policies of its namespace take more of the agent's memory than one namespace may (a quarter), so nodes hold no rules of the youngest: " +
	"make them fewer or smaller, or give agents more memory (agent.resources.limits.memory)")
