package compile_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Every set says what it does to packets that a member enters.
func TestEachSetHasAnEffect(t *testing.T) {
	forSamples(t, func(t *testing.T, s *sample) {
		out := compileAllDrops(s.objects.Cluster(), s.node, s.family, compile.Cuts{compile.ByPolicy: {}, compile.ByLink: {}})
		for _, set := range out.Ruleset.Sets {
			require.NotEqual(t, ruleset.Neutral, set.Entering, set.Name)
		}
	})
}

// Whatever enters a set that closes, no packet passes that was dropped before. Whatever enters
// one that opens, no packet is dropped that passed before.
func TestEnteringASetHasItsEffect(t *testing.T) {
	const every = 811 // of so many packets one is sent
	changed := map[string]int{}
	for seed := range uint64(10) {
		o := policytest.RandomDice(seed, 900).Cluster()
		c := o.Cluster()
		for _, node := range nodesOf(c) {
			for _, family := range ruleset.Families() {
				out := compileAllDrops(c, node, family, compile.Cuts{})
				sets := contents(&out, c)
				sets[compile.TunnelSet(family)] = out.TunnelEnds
				tr := newTracer(t, &out.Ruleset, sets)
				turn := 0
				for _, p := range packetsBetween(o, family) {
					if turn++; turn%every == 0 {
						enterEach(t, tr, &out, p, changed)
					}
				}
			}
		}
	}
	t.Log(changed)
	for _, name := range []string{"isolated", "local", "foreign", "tunnel", "peers"} {
		require.Positive(t, changed[name], name)
	}
}

// packetsBetween returns packets of all services between all ends, by the bridge of the pods and
// by another interface. Some go to the port of a tunnel.
func packetsBetween(o *policytest.Objects, family ruleset.Family) []*packet {
	var packets []*packet
	services := append(o.Services(), policytest.Service{Protocol: policy.UDP, Port: 8472})
	for _, from := range o.Ends() {
		for _, to := range o.Ends() {
			if !family.Holds(from.Addr) || !family.Holds(to.Addr) {
				continue
			}
			for _, s := range services {
				for _, links := range [][2]string{{bridge, bridge}, {bridge, "eth0"}, {"eth0", bridge}} {
					packets = append(packets, &packet{
						source: from.Addr, destination: to.Addr, protocol: s.Protocol, port: s.Port, icmpType: s.Type, in: links[0], out: links[1],
					})
				}
			}
		}
	}
	return packets
}

// enterEach makes both ends of a packet enter each set in turn, and compares its fate.
func enterEach(t *testing.T, tr *tracer, out *compile.Output, p *packet, changed map[string]int) {
	t.Helper()
	for _, set := range out.Ruleset.Sets {
		if set.Type == ruleset.HashNet {
			continue // its members never change
		}
		for _, side := range []ruleset.Side{ruleset.Source, ruleset.Destination} {
			member := ruleset.Address(p.addr(side))
			if set.Type == ruleset.HashIPPort {
				member.Protocol, member.Port = uint8(p.protocol), p.port
			}
			if _, in := tr.sets[set.Name][member]; in {
				continue
			}
			for _, chain := range []string{compile.ForwardChain, compile.InputChain} {
				before := tr.dropped(chain, p)
				tr.sets[set.Name][member] = struct{}{}
				after := tr.dropped(chain, p)
				delete(tr.sets[set.Name], member)
				if before != after {
					require.Equal(t, after, set.Entering == ruleset.Closes, "%v enters %s, packet %+v in %s", member, set.Name, p, chain)
					changed[roleOf(set.Name, out)]++
				}
			}
		}
	}
}

func roleOf(set string, out *compile.Output) string {
	family := out.Ruleset.Family
	switch set {
	case compile.LocalSet(family):
		return "local"
	case compile.ForeignSet(family):
		return "foreign"
	case compile.TunnelSet(family):
		return "tunnel"
	case compile.IsolatedSet(family, policy.Ingress), compile.IsolatedSet(family, policy.Egress):
		return "isolated"
	}
	return "peers"
}
