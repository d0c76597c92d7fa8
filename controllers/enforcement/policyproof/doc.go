// Package policyproof writes on which nodes a policy that was written by hand is enforced, into
// a PolicyEnforcement of the policy's name. Such a policy has no status of its own.
//
// These hold:
//   - A PolicyEnforcement speaks of the policy that owns it, and of no earlier one of its name.
//   - A deleted PolicyEnforcement comes back while its policy is there, and goes with it.
//   - The policy itself is never written.
package policyproof
