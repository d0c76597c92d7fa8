// Package report says in the NodeEnforcement of one node what is in force there, and writes it.
//
// Reporter puts the outcome of each sync into words: which policies the kernel holds as they are
// written now, why others failed, and what the node can't enforce. It never says more than the
// last sync proved: after a failure a policy counts as enforced only if the kernel holds that
// generation from before. Its Writer alone writes the object, only when its content changes, and
// at most every two seconds, however fast the node changes. It doesn't touch the field
// status.agent, which is the operator's, and adds the Node of the report, and the boot of that
// Node.
//
// Reporter and Writer are safe for concurrent use. The Writer's lock is never held while a
// Reporter's is taken.
package report
