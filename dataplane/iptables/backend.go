package iptables

import (
	"context"
	"os/exec"
	"strings"
)

// Detect returns the backend that the node's other programs use. kubelet and
// kube-proxy leave chains in the mangle table to be recognised by (KEP-3178,
// "iptables cleanup"); on a node without them the backend with more rules wins,
// and nft where there are none at all.
func Detect(ctx context.Context) Backend {
	nft, legacy := savedMangle(ctx, NFT), savedMangle(ctx, Legacy)
	switch {
	case hasHint(nft):
		return NFT
	case hasHint(legacy):
		return Legacy
	case strings.Count(legacy, "\n-A ") > strings.Count(nft, "\n-A "):
		return Legacy
	}
	return NFT
}

// savedMangle returns the mangle table, or nothing where it can't be read: the
// backend isn't in use then.
func savedMangle(ctx context.Context, backend Backend) string {
	path, err := exec.LookPath(string(backend) + "-save")
	if err != nil {
		return ""
	}
	output, err := run(ctx, "", path, "-t", "mangle")
	if err != nil {
		return ""
	}
	return output
}

func hasHint(table string) bool {
	return strings.Contains(table, ":KUBE-IPTABLES-HINT ") || strings.Contains(table, ":KUBE-KUBELET-CANARY ")
}
