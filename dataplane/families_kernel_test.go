package dataplane

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// The kernel gets IPv6 while the agent runs: the next inspection notices, and pods are closed
// in IPv6 too.
func TestIPv6ThatIsLoadedLaterIsNoticed(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		families := []ruleset.Family{ruleset.IPv4}
		s.enforcer.families = func() []ruleset.Family { return families }
		s.label("test-np", map[string]string{"role": "db"})
		s.apply("metadata: {name: closed}\nspec: {podSelector: {matchLabels: {role: db}}}")
		s.sync()
		s.comeToRest()
		server := s.hosts["test-np"]
		require.False(t, s.hosts["busybox"].Ping(server.Addrs[0], patience(false)))
		require.True(t, s.hosts["busybox"].Ping(server.Addrs[1], patience(true)), "nobody writes rules of IPv6 yet")

		families = ruleset.Families()
		s.inspect()
		s.sync()
		s.requirePings(false, s.hosts["busybox"], server)
		s.requirePings(true, s.hosts["busybox"], s.hosts["neighbour"])
		s.comeToRest()
	})
}
