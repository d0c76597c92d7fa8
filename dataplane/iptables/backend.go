package iptables

import (
	"context"
	"os"
	"os/exec"
	"strings"
)

// Detect returns the backend that the node's other programs use. kubelet and
// kube-proxy leave chains in the mangle table to be recognised by (KEP-3178,
// "iptables cleanup"); on a node without them the backend with more rules wins,
// and nft where there are none at all.
func Detect(ctx context.Context) Backend {
	nft := savedMangle(ctx, NFT)
	if hasHint(nft) || !legacyInUse() {
		return NFT
	}
	legacy := savedMangle(ctx, Legacy)
	if hasHint(legacy) || strings.Count(legacy, "\n-A ") > strings.Count(nft, "\n-A ") {
		return Legacy
	}
	return NFT
}

// legacyInUse reports whether the network namespace has any legacy table. To ask
// iptables-legacy itself would make one, and every later run of iptables-nft warn
// of it.
func legacyInUse() bool {
	tables, err := os.ReadFile("/proc/thread-self/net/ip_tables_names")
	return err == nil && len(tables) > 0
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
