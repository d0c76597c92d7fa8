// Package roads proves what becomes of packets on every road that leads Moat into a
// cluster, through an update, or out of it: by Helm, by kubectl, in Argo CD's order,
// and by accident. Each road is played on the local cluster while an isolated, an open
// and a new pod are pinged on every node.
//
// It is all tests. `make roads` plays the roads; the table of docs/operations.md has the
// same rows.
package roads
