// Package backoff waits: for a time that doubles with each failure, or until a context ends.
//
// A Backoff belongs to one goroutine; Sleep is safe for concurrent use.
package backoff
