package dataplane

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// written counts the runs of iptables-restore while do runs.
func (s *scene) written(do func()) float64 {
	before := s.restores()
	do()
	return s.restores() - before
}

// A new agent that finds the state of the one before writes nothing, and neither does
// one whose predecessor died between two steps write more than what is missing.
func TestARestartChangesWhatDiffers(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.label("busybox", map[string]string{"role": "frontend"})
		s.apply(walkThrough)
		s.sync()
		healthy := withoutCounters(s.dump())
		handles := s.run("ipset", "list", "-n")
		flows := []flow{{s.hosts["busybox"], s.hosts["test-np"], true}, {s.hosts["neighbour"], s.hosts["test-np"], false}}
		peers := s.setHolding("10.244.2.10")
		whileFlowing(t, flows, func() {
			for _, row := range []struct {
				name     string
				died     func()
				restores float64
			}{
				{"after all was done", func() {}, 0},
				{"after sets were made", func() { s.grow("moat-4-p-0000000000000000", 100) }, 0},
				{"in the middle of making one larger", func() { s.grow(peers+"-00ff", 3) }, 0},
				{"before elements left", func() { s.run("ipset", "add", peers, "10.9.9.9") }, 0},
				{"before rules of one family were written", func() { s.damage("ip6tables -F MOAT-EGRESS") }, 1},
				{"before old chains went", func() { s.damage("iptables -N MOAT-I-OLD"); s.damage("iptables -A MOAT-I-OLD -j DROP") }, 1},
			} {
				row.died()
				s.restart(backend)
				require.Equal(t, row.restores, s.written(s.sync), row.name)
				require.Equal(t, healthy, withoutCounters(s.dump()), row.name)
			}
		})
		require.ElementsMatch(t, strings.Fields(handles), strings.Fields(s.run("ipset", "list", "-n")))

		// Before the set of isolated pods had all of them.
		s.run("ipset", "del", "moat-4-ingress", "10.244.1.10")
		s.restart(backend)
		require.Zero(t, s.written(s.sync))
		require.Equal(t, healthy, withoutCounters(s.dump()))
	})
}

// grow makes a set as an agent does that then dies.
func (s *scene) grow(name string, elements int) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error {
		sets, err := ipset.Open("moat-")
		if err != nil {
			return err
		}
		defer sets.Close()
		s.run("ipset", "create", name, "hash:ip")
		for i := range elements {
			s.run("ipset", "add", name, fmt.Sprintf("10.77.0.%d", i+1))
		}
		return nil
	}))
}

// What an older version left in other tables and with other names goes once the new
// rules are in force, in both backends and families; so does cleanup take it away.
func TestAnOlderLayoutGoes(t *testing.T) {
	for _, how := range []string{"agent", "cleanup"} {
		t.Run(how, func(t *testing.T) {
			s, foreign, _ := switchingScene(t, iptables.NFT)
			before := foreign()
			for _, command := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
				s.run(command, "-N", "MOAT-FORWARD")
				s.run(command, "-N", "MOAT-OLD-INGRESS")
				s.run(command, "-A", "MOAT-FORWARD", "-j", "MOAT-OLD-INGRESS")
				s.run(command, "-A", "MOAT-OLD-INGRESS", "-j", "DROP")
				s.run(command, "-I", "FORWARD", "1", "-j", "MOAT-FORWARD")
				s.run(command, "-A", "OUTPUT", "-j", "MOAT-FORWARD")
			}
			s.run("ipset", "create", "moat-old", "hash:ip")
			s.run("iptables-nft", "-A", "MOAT-OLD-INGRESS", "-m", "set", "--match-set", "moat-old", "src", "-j", "DROP")
			passes := func() bool { return s.hosts["busybox"].Ping(s.hosts["neighbour"].Addrs[0], silentAfter) }
			require.False(t, passes())
			if how == "agent" {
				s.sync()
				s.sync() // the set was in use until its rules went
				require.NotContains(t, s.run("ipset", "list", "-n"), "moat-old")
				s.requireAgreement()
			} else {
				require.NoError(t, s.cleanUp(&strings.Builder{}))
				require.NotContains(t, s.everything(), "MOAT-")
				require.NotContains(t, s.everything(), "moat-")
			}
			require.True(t, passes())
			require.Equal(t, before, foreign())
			for _, command := range saveCommands {
				require.NotContains(t, s.run(command, "-t", "filter"), "MOAT-")
			}
		})
	}
}

// A thousand syncs while policies, pods and peers change: what isn't Moat's stays as it
// is, byte by byte. Every fifth sync writes rules, the others sets.
func TestAThousandSyncsBesideOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("takes twenty seconds")
	}
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s, foreign, _ := switchingScene(t, backend)
		s.run("ipset", "create", "foreign", "hash:net")
		s.run("ipset", "add", "foreign", "10.9.0.0/16")
		s.run("nft", "add", "table", "inet", "native")
		s.run("nft", "add chain inet native forward { type filter hook forward priority 10 ; }")
		s.run("nft", "add rule inet native forward tcp dport 9999 drop")
		native := func() string {
			return s.run("nft", "list", "table", "inet", "native") + s.run("ipset", "save", "foreign")
		}
		before, beforeNative := foreign(), native()
		for i := range 1000 {
			s.label("neighbour", map[string]string{"role": []string{"frontend", "other"}[i%2]})
			switch i % 20 {
			case 0, 10:
				s.apply(strings.Replace(walkThrough, "port: 80", fmt.Sprintf("port: %d", 80+i%7), 1))
			case 5:
				s.apply("metadata: {name: closed}\nspec: {podSelector: {}, policyTypes: [Ingress]}")
			case 15:
				s.remove("closed")
				s.enforcer.distrust()
			}
			s.sync()
		}
		require.Equal(t, before, foreign())
		require.Equal(t, beforeNative, native())
		s.requireAgreement()
	})
}
