// Package enforcement joins the reports of the nodes' agents with the pods, and
// writes on which nodes each policy is enforced: into the status of its
// AppIsolation, or into the PolicyEnforcement of a policy that was written by hand.
//
// The agents never write a per-policy object: that would cost policies × nodes
// writes. Each writes its one NodeEnforcement, only the operator watches these,
// and one write per policy and change goes out.
//
// This package sets the two controllers up. A package imports only those below it:
//
//	enforcement                the setup
//	appstatus, policyproof     one reconciler each; neither imports the other
//	triggers, statuswriter     which objects an event concerns; when a status is written
//	survey                     what there is to judge about a policy
//	judge                      where a policy is enforced; pure
package enforcement
