// Package build provides the programs and images that a cluster is made of: components from
// pinned Go modules, Debian packages, and images that it makes without a registry. What it
// has built is kept in a cache, which all checkouts share.
//
// The command line imports it. It knows neither machines nor Kubernetes: it starts nothing
// that outlives the call.
package build
