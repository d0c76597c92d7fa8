// Package triggers finds which objects an event concerns. When a pod, an agent's report, a Node
// or a policy changes, it enqueues those objects whose status may change with it.
//
// These hold:
//   - It never leaves out a concerned object. It may enqueue one that isn't.
//   - An event that makes a status untrue at once waits for nothing. Other events wait for Delay,
//     so that the reports of many nodes about one change become few reconciliations.
package triggers
