package dataplane

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// saveCommands print all that a node's iptables hold.
var saveCommands = []string{"iptables-nft-save", "iptables-legacy-save", "ip6tables-nft-save", "ip6tables-legacy-save"}

// everything is what the node holds, of whomever, without the dates and the counters
// of the built-in chains.
func (s *scene) everything() string {
	var dump strings.Builder
	for _, command := range saveCommands {
		dump.WriteString(command + "\n")
		for line := range strings.Lines(s.run(command)) {
			if strings.HasPrefix(line, ":") {
				line, _, _ = strings.Cut(line, "[")
			}
			if !strings.HasPrefix(line, "#") {
				dump.WriteString(line)
			}
		}
	}
	return dump.String() + s.run("ipset", "save")
}

const unusedAddress = "127.0.0.1:1"

// cleanUp runs Cleanup on the node.
func (s *scene) cleanUp(out io.Writer) error {
	return s.node.Do(func() error { return Cleanup(s.t.Context(), unusedAddress, out) })
}

// Whatever agents left goes, be it of both backends and of one that died; what only
// looks like Moat's stays.
func TestCleanupRemovesMoatAndNothingElse(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s, _, _ := switchingScene(t, backend)
		for _, set := range []string{"neighbours", "moat", "not-moat-4"} {
			s.run("ipset", "create", set, "hash:ip")
			s.run("ipset", "add", set, "10.9.8.7")
		}
		for _, command := range []string{"iptables-nft", "iptables-legacy"} {
			s.run(command, "-t", "mangle", "-N", "NOT-MOAT-4")
			s.run(command, "-t", "mangle", "-A", "FORWARD", "-m", "set", "--match-set", "moat", "src", "-j", "NOT-MOAT-4")
			s.run(command, "-A", "FORWARD", "-m", "comment", "--comment", "MOAT-FORWARD", "-j", "NEIGHBOUR")
		}
		before := s.everything()

		s.sync()
		s.restart(backend.Other())
		require.NoError(t, s.node.Do(func() error { return s.enforcer.open(t.Context()) }))
		s.enforcer.others = nil // as if it died before it left the old backend
		s.sync()
		for _, command := range saveCommands {
			require.Contains(t, s.run(command, "-t", "mangle"), "-A FORWARD "+hook("FORWARD"))
		}
		s.run("ipset", "create", "moat-4-egress-00ff", "hash:ip")
		s.run("iptables-nft", "-t", "mangle", "-A", "FORWARD", "-j", "MOAT-FORWARD") // a hook twice
		s.requirePing(false, "neighbour", "test-np")

		var out strings.Builder
		require.NoError(t, s.cleanUp(&out))
		require.Equal(t, before, s.everything())
		require.Contains(t, out.String(), "chains and the hooks in FORWARD, INPUT, PREROUTING")
		s.requirePing(true, "neighbour", "test-np")

		out.Reset()
		require.NoError(t, s.cleanUp(&out))
		require.Equal(t, before, s.everything())
		require.Equal(t, 4, strings.Count(out.String(), "no rules of Moat"), out.String())
		require.Contains(t, out.String(), "removed 0 sets")
	})
}

// Where there is nothing no tables appear either.
func TestCleanupOfAnEmptyNode(t *testing.T) {
	t.Parallel()
	s := newScene(t, "")
	require.NoError(t, s.cleanUp(io.Discard))
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		require.Empty(t, s.run("cat", "/proc/thread-self/net/"+file))
	}
	require.Empty(t, s.run("iptables-nft-save")+s.run("ip6tables-nft-save"))
}

// What other programs hold on to is left, and the error quotes their rule. The rest
// goes, and all of it once they let go.
func TestCleanupNamesWhatIsInUse(t *testing.T) {
	for _, use := range []string{"-m set --match-set moat-4-egress src -j ACCEPT", "-i cni0 -j MOAT-FORWARD"} {
		t.Run(use, func(t *testing.T) {
			backends(t, func(t *testing.T, backend iptables.Backend) {
				s := walkThroughScene(t, backend)
				s.sync()
				s.run(string(backend), append([]string{"-t", "mangle", "-A", "FORWARD"}, strings.Fields(use)...)...)
				err := s.cleanUp(io.Discard)
				require.ErrorContains(t, err, "moat-4-egress")
				require.ErrorContains(t, err, string(backend)+", IPv4: -A FORWARD "+use)
				require.NotContains(t, err.Error(), "moat-6")
				require.Contains(t, s.run(string(backend)+"-save"), use)
				require.NotContains(t, s.run("ipset", "list", "-n"), "moat-6")

				s.run(string(backend), append([]string{"-t", "mangle", "-D", "FORWARD"}, strings.Fields(use)...)...)
				require.NoError(t, s.cleanUp(io.Discard))
				require.NotContains(t, s.everything(), "MOAT")
				require.NotContains(t, s.everything(), "moat-")
			})
		})
	}
}

// A table that others' rules make unreadable is cleaned without being read: native nft
// rules, and extensions that the image lacks.
func TestCleanupBesideNativeRules(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.sync()
		s.run("iptables-nft", "-t", "mangle", "-A", "FORWARD", "-j", "ACCEPT") // makes the chain, with the legacy backend too
		s.addNativeRule("mangle", "FORWARD")
		require.NoError(t, s.cleanUp(io.Discard))
		require.NotContains(t, s.everything(), "MOAT")
		require.NotContains(t, s.everything(), "moat-")
		require.NotContains(t, s.run("nft", "list", "ruleset"), "MOAT")
		require.Contains(t, s.run("nft", "list", "ruleset"), "notrack")
	})
}

func TestCleanupBesideAnUnknownExtension(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			withoutExtension(t, "statistic")
			s := walkThroughScene(t, backend)
			s.label("test-np", map[string]string{"role": "db"})
			s.apply(walkThrough)
			s.sync()
			for _, program := range []string{"iptables", "ip6tables"} {
				s.damage(program + " -I FORWARD 1 -m statistic --mode random --probability 0.5 -j RETURN")
				s.damage(program + " -A FORWARD -j MOAT-FORWARD")
			}
			require.NoError(t, s.cleanUp(io.Discard))
			require.NotContains(t, s.everything(), "MOAT")
			require.NotContains(t, s.everything(), "moat-")
			require.Contains(t, s.everything(), "statistic")
		})
	}
}

// While an agent answers, be it an unhealthy one, nothing is removed.
func TestCleanupRefusesBesideAnAgent(t *testing.T) {
	t.Parallel()
	s := walkThroughScene(t, iptables.NFT)
	s.sync()
	before := s.everything()
	const address = "127.0.0.1:9471"
	cleanUp := func() error {
		return s.node.Do(func() error { return Cleanup(t.Context(), address, io.Discard) })
	}
	for name, handler := range map[string]http.Handler{
		"moat-system/moat-agent-x":     (&health.Checks{}).Handler(health.Holder{Namespace: "moat-system", Pod: "moat-agent-x"}),
		"an agent of an older version": health.Answer(func() error { return io.ErrUnexpectedEOF }),
	} {
		var port *health.Port
		require.NoError(t, s.node.Do(func() (err error) {
			port, err = health.Claim(t.Context(), address, health.Holder{}, logr.Discard())
			return err
		}))
		port.ServeHandler(handler)
		err := cleanUp()
		require.ErrorIs(t, err, errAgentRuns)
		require.ErrorContains(t, err, "it is "+name)
		port.Close()
	}
	require.Equal(t, before, s.everything())
	require.NoError(t, cleanUp())
	require.NotContains(t, s.everything(), "MOAT")
}

// onLine runs do when a line is written that contains the text.
type onLine struct {
	text string
	do   func()
}

func (w onLine) Write(line []byte) (int, error) {
	if strings.Contains(string(line), w.text) {
		w.do()
	}
	return len(line), nil
}

// An agent whose health check is elsewhere puts its rules back: that is no success.
func TestCleanupSeesWhatComesBack(t *testing.T) {
	for name, comesBack := range map[string][]string{
		"MOAT-FORWARD":  {"iptables-legacy", "-t", "mangle", "-N", "MOAT-FORWARD"},
		"moat-4-egress": {"ipset", "create", "moat-4-egress", "hash:ip"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := walkThroughScene(t, iptables.Legacy)
			s.sync()
			err := s.cleanUp(onLine{"removed 4 sets", func() { s.run(comesBack[0], comesBack[1:]...) }})
			require.ErrorIs(t, err, errAgentRuns)
			require.ErrorContains(t, err, name+" came back")
			require.NoError(t, s.cleanUp(io.Discard))
		})
	}
}

// The kernel lets go of sets some time after the rules: that is waited for.
func TestCleanupWaitsForSetsInUse(t *testing.T) {
	t.Parallel()
	s := walkThroughScene(t, iptables.NFT)
	s.sync()
	s.run("ipset", "create", "holder", "list:set")
	s.run("ipset", "add", "holder", "moat-4-egress")
	err := s.cleanUp(io.Discard)
	require.ErrorContains(t, err, "still in use: moat-4-egress\n")
	require.ErrorContains(t, err, "look for other sets")

	released := make(chan error, 1)
	time.AfterFunc(busyWait/5, func() {
		released <- s.node.Do(func() error { return exec.Command("ipset", "del", "holder", "moat-4-egress").Run() })
	})
	require.NoError(t, s.cleanUp(io.Discard))
	require.NoError(t, <-released)
}

// killedAt is a cleanup's output. The process dies when the given line is written, counted
// from 1; with 0 never.
type killedAt struct{ line, written int }

func (k *killedAt) Write(text []byte) (int, error) {
	k.written++
	if k.written == k.line {
		panic(k)
	}
	return len(text), nil
}

// A cleanup that is killed anywhere goes on where it stopped, when it is started again.
func TestAnInterruptedCleanupGoesOn(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		remove := func(out io.Writer) {
			require.NoError(t, s.node.Do(func() (err error) {
				defer func() {
					if died := recover(); died != nil && died != out {
						panic(died)
					}
				}()
				return Remove(t.Context(), out)
			}))
		}
		whole := &killedAt{}
		remove(whole)
		empty := s.everything()
		require.NotContains(t, empty, "MOAT")
		require.Greater(t, whole.written, 4, "each table, then the sets")
		rests := map[string]bool{}
		for line := 1; line <= whole.written; line++ {
			s.enforcer.distrust()
			s.sync()
			s.requirePing(false, "neighbour", "test-np")
			out := &killedAt{line: line}
			remove(out)
			require.Equal(t, line, out.written, "it died there")
			rests[s.everything()] = true
			remove(&killedAt{})
			require.Equal(t, empty, s.everything())
			s.requirePing(true, "neighbour", "test-np")
		}
		require.GreaterOrEqual(t, len(rests), 3, "it died in the middle, too")
	})
}
