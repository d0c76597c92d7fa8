package iptables

import (
	"context"
	"os"
	"os/exec"
	"strings"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Detect returns the backend that the node's other programs use. kubelet and
// kube-proxy leave chains in the mangle table to be recognised by (KEP-3178,
// "iptables cleanup"); on a node without them the backend with more rules wins,
// and nft where there are none at all. Rules of chains with the prefix are Moat's own
// and don't count.
func Detect(ctx context.Context, chainPrefix string) Backend {
	// One that can't be read to its end begins with the names of its chains.
	nft, _ := savedMangle(ctx, NFT)
	if hasHint(nft) || !legacyInUse() {
		return NFT
	}
	legacy, _ := savedMangle(ctx, Legacy)
	if hasHint(legacy) || foreignRules(legacy, chainPrefix) > foreignRules(nft, chainPrefix) {
		return Legacy
	}
	return NFT
}

// DetectChange returns the backend that the node uses now, where the agent uses
// present. Only hint chains count: numbers of rules vary, and a table that can't be read for a
// moment proves nothing.
func DetectChange(ctx context.Context, present Backend) Backend {
	nft, err := savedMangle(ctx, NFT)
	switch {
	case hasHint(nft):
		return NFT
	case err != nil || present == Legacy || !legacyInUse():
		return present
	}
	if legacy, _ := savedMangle(ctx, Legacy); hasHint(legacy) {
		return Legacy
	}
	return present
}

// Other returns the backend that isn't this one.
func (b Backend) Other() Backend {
	if b == NFT {
		return Legacy
	}
	return NFT
}

// legacyInUse reports whether the network namespace has any legacy table. It doesn't run
// iptables-legacy: that would make a table, and every later run of iptables-nft would warn
// of it.
func legacyInUse() bool { return len(legacyTables(ruleset.IPv4)) > 0 }

// legacyTables lists the legacy tables that exist.
func legacyTables(family ruleset.Family) []string {
	names, _ := os.ReadFile(legacyNames(family)) // no file: the kernel has no legacy tables
	return strings.Fields(string(names))
}

// legacyNames is the file that lists the tables of the calling thread's network
// namespace.
func legacyNames(family ruleset.Family) string {
	if family == ruleset.IPv6 {
		return "/proc/thread-self/net/ip6_tables_names"
	}
	return "/proc/thread-self/net/ip_tables_names"
}

func savedMangle(ctx context.Context, backend Backend) (string, error) {
	path, err := exec.LookPath(string(backend) + "-save")
	if err != nil {
		return "", err
	}
	return run(ctx, RunTimeout, "", path, "-t", "mangle")
}

func foreignRules(table, chainPrefix string) int {
	count := 0
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "-A ") && !strings.Contains(line, chainPrefix) && !strings.Contains(line, early(chainPrefix)) {
			count++
		}
	}
	return count
}

func hasHint(table string) bool {
	return strings.Contains(table, ":KUBE-IPTABLES-HINT ") || strings.Contains(table, ":KUBE-KUBELET-CANARY ")
}
