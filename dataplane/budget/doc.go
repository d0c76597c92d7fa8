// Package budget counts what policies become in the kernel of a node before anything of
// it is built, and says which policies are too expensive.
//
// A policy of a few kilobytes can become a million prefixes or rules. An exception splits
// a block, each peer is combined with each group of ports, and each selector with
// each name of a port. Such a product is computed here from the numbers of its factors.
//
// What always holds:
//   - A count is an upper bound of what compile makes: a policy that is within its budget never
//     costs more.
//   - A policy over budget is closed, and never at another namespace's expense: see Decide.
//
// The package is pure. Goroutines may share its values, except a Ledger.
package budget
