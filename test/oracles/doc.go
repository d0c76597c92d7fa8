// Package oracles compares policy.Evaluate with engines that others wrote.
//
// Every engine judges the same random clusters. Where one is known to read the
// API differently, a class says how: it rewrites the objects so that Evaluate
// reads them in the engine's way, and then the two have to agree on every flow.
// docs/oracles.md says for each class who is right.
package oracles
