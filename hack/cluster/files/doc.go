// Package files looks for files and replaces them.
//
// Every package of the local cluster may import it. It imports none of them.
package files
