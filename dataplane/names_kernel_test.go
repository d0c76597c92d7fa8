package dataplane

import (
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/report/reporttest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

const twoBlocks = `
metadata: {name: blocks}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress]
  ingress: [{from: [{ipBlock: {cidr: 10.244.2.10/32}}, {ipBlock: {cidr: 192.0.2.1/32}}]}]
`

// A set that the kernel holds for something else is not taken for the one of that name that a
// policy wants, though both digests begin alike: the policy allows nothing by it, and is
// reported, until the set is gone.
func TestASetOfThatNameAndOtherContent(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(twoBlocks)
		s.sync()
		s.requireTCP(true, "busybox", "test-np", 80)
		s.requireTCP(false, "project", "test-np", 80)
		var name string
		for held := range s.enforcer.held[ruleset.IPv4] {
			if strings.HasPrefix(held, "moat-4-n-") {
				name = held
			}
		}
		require.NotEmpty(t, name)
		s.remove("blocks")
		s.sync()

		// Another policy's, which goes with the same sync: it lets another pod in.
		s.run("ipset", "create", name, "hash:net")
		s.run("ipset", "add", name, "10.244.2.11")
		s.enforcer.known[name] = ruleset.Set{Name: name, Type: ruleset.HashNet, Family: ruleset.IPv4}
		s.enforcer.held[ruleset.IPv4][name] = compile.Content{1}
		s.apply(twoBlocks)
		s.sync()
		s.requireTCP(false, "project", "test-np", 80)
		s.requireTCP(false, "busybox", "test-np", 80)
		require.ErrorIs(t, s.enforcer.view.refused["default/blocks"], errNameTaken)
		require.Equal(t, "default/blocks!RestoreFailed", reporttest.List(observed(report.New(nil, nil, "node-1", logr.Discard()), s.enforcer.view, nil)))

		s.sync()
		s.requireTCP(true, "busybox", "test-np", 80)
		s.requireTCP(false, "project", "test-np", 80)
		require.Empty(t, s.enforcer.view.refused)
	})
}
