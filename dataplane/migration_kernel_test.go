package dataplane

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// leftByOthers is what is on a node when other engines are gone: kube-router's rules
// for a pod, beside a rule of Flannel; Calico's chains after its own script has emptied
// them; the table of kube-network-policies.
const leftByOthers = `set -e
for family in iptables ip6tables; do
  for chain in KUBE-ROUTER-FORWARD KUBE-POD-FW-AAAA KUBE-NWPLCY-BBBB FLANNEL-FWD; do $family -N $chain; done
  $family -A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
  $family -A KUBE-ROUTER-FORWARD -m comment --comment "rule to jump traffic" -j KUBE-POD-FW-AAAA
  $family -A KUBE-POD-FW-AAAA -j KUBE-NWPLCY-BBBB
  $family -A KUBE-POD-FW-AAAA -m mark ! --mark 0x10000/0x10000 -j REJECT
  $family -A KUBE-NWPLCY-BBBB -j MARK --set-xmark 0x10000/0x10000
  $family -A FORWARD -j FLANNEL-FWD
done
for table in raw mangle nat filter; do iptables -t $table -N cali-PREROUTING; done
iptables -t filter -N cali-tw-cali01234567890
nft add table inet kube-network-policies
nft add chain inet kube-network-policies postrouting`

// The commands of docs/migration.md take away what other engines leave, and nothing else.
func TestTheDocumentedRemovalOfOtherEngines(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	rules := s.run("iptables-nft-save", "-t", "mangle")
	s.run("sh", "-c", leftByOthers)
	s.lookAround()
	require.Len(t, s.enforcer.engines, 3)

	text, err := os.ReadFile("../docs/migration.md")
	require.NoError(t, err)
	blocks := strings.Split(string(text), "```sh\n")[1:]
	require.Len(t, blocks, 3)
	for _, block := range blocks {
		commands, _, ended := strings.Cut(block, "```")
		require.True(t, ended)
		s.run("sh", "-e", "-c", commands)
	}
	s.lookAround()
	require.Empty(t, s.enforcer.engines)
	for _, family := range []string{"iptables", "ip6tables"} {
		filter := s.run(family+"-nft-save", "-t", "filter")
		require.NotContains(t, filter, "KUBE-")
		require.NotContains(t, filter, "kube-router")
		require.Contains(t, filter, "-A FORWARD -j FLANNEL-FWD")
	}
	require.NotEmpty(t, rulesOf(rules))
	require.Equal(t, rulesOf(rules), rulesOf(s.run("iptables-nft-save", "-t", "mangle")))
}

// lookAround makes the next sync look for other engines.
func (s *scene) lookAround() {
	s.enforcer.inspection.aroundAt = time.Now().Add(-readEvery)
	s.enforcer.distrust()
	s.sync()
}

// rulesOf leaves out comments and counters.
func rulesOf(save string) (rules []string) {
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, "-A ") {
			rules = append(rules, line)
		}
	}
	return rules
}
