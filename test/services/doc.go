// Package services shows what a policy sees of traffic that goes through Services:
// the real kube-proxy runs on every node beside the agent as it is shipped, in each
// of its modes and with each backend of iptables.
//
// docs/semantics.md has the table of what is measured here. Beside what package
// cluster needs, kube-proxy has to be in KUBEBUILDER_ASSETS and nft in PATH.
package services
