// Package notify tells people of what an agent finds: in the log, in a metric, and by an event of
// the Node or of a pod, once for each thing that is new. Of one kind there is one event in ten
// seconds, after a burst, whatever happens on the node.
//
// NodeNews is safe for concurrent use; the rest belongs to the sync loop.
package notify
