// Package ruleset is packet filtering as plain data: chains of rules, and the address sets that
// they look up.
//
// A Ruleset is the whole desired state of one IP family. It knows no program that could put it
// into the kernel. What always holds:
//   - No action accepts.
//   - Every chain that a rule names, and every set that it looks up, is in the Ruleset.
//   - A value never changes once it is made, so goroutines may share it.
//
// The package uses only the standard library. A reader of a Match has to know all of its types,
// and must not leave one out: a rule that allows with one condition less allows more.
package ruleset
