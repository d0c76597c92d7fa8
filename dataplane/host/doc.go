// Package host looks at the node's network beside its packet filter: which interfaces and
// routes lead to which addresses, whose tunnels end here, whether bridged packets pass
// iptables, and whether kube-proxy balances with IPVS.
//
// It only looks, but for FilterBridged, which sets two switches. Every question goes to the
// kernel again and ends after nfnetlink.AnswerWithin where the program has set that as its
// netlink timeout. What can't be told is an error: callers keep what they knew.
//
// Ways and PodLinks remember what they found and belong to one goroutine. The rest are
// functions, safe for concurrent use in the network namespace of the calling thread.
package host
