package chaos

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// Ports of the clients that connect while a node has no rules.
const firstGapPort = clientPort + 100

// gapConnect is how long a connection may take that is opened while there are no rules.
// Longer ones were opened too late.
const gapConnect = 100 * time.Millisecond

// flushes empty all tables of a node, as `nft flush ruleset` and reloads of firewalls do.
// Then nothing asks the kernel to track connections. Pods connect in that gap, and their
// servers send first: once the rules are back, the kernel takes the servers for those that
// began. The connections that policies forbid are cut, the others live on.
func (s *suite) flushes() {
	for i := range s.Nodes {
		for round := range s.size.flushes {
			name := fmt.Sprintf("all tables of %s are flushed, %d of %d", s.Nodes[i].Name, round+1, s.size.flushes)
			s.make(fault{kind: kindFlush, name: name, harms: true, do: func(a *attempt) { s.flush(a, i) }})
		}
	}
	s.awaitRecovery()
}

// flush makes the fault on a node whose server pods connect to.
func (s *suite) flush(a *attempt, node int) {
	s.t.Helper()
	a.damage(s)
	forbiddenOne, allowedOne := s.connectInGap(a, node)
	s.answer(a, forbidden, s.pod(stranger, node), s.pod(server, node), forbiddenOne)
	s.answer(a, allowed, s.pod(friend, node), s.pod(server, node), allowedOne)
	see := s.welcome(a, node)
	s.awaitRepair(a)
	see()
	s.wire.remove(a.own...)
	s.sleep(answerWithin)
	for _, st := range a.own {
		a.extra = append(a.extra, window{st, 0, st.position()})
	}
	a.own = nil
	forbiddenOne.close()
	allowedOne.close()
}

// flushTries is how often a node is flushed until both connections come about before its
// agent puts the rules back.
const flushTries = 20

// connectInGap flushes a node and opens a connection that is forbidden and one that is
// allowed before the rules are back.
func (s *suite) connectInGap(a *attempt, node int) (forbiddenOne, allowedOne *connection) {
	s.t.Helper()
	to := s.pod(server, node)
	served := netip.AddrPortFrom(to.addr(ruleset.IPv4), portTCP)
	open := func(from *endpoint) (*connection, error) {
		s.gaps++
		client := netip.AddrPortFrom(from.addr(ruleset.IPv4), firstGapPort+s.gaps)
		return s.tryConnect(s.t, from, to, client, served, gapConnect)
	}
	for range flushTries {
		s.flushAll(s.Nodes[node])
		a.since = s.wire.now()
		first, err := open(s.pod(stranger, node))
		if err != nil {
			continue
		}
		// The forbidden one shows that there were no rules. The other one may come later.
		second, err := open(s.pod(friend, node))
		require.NoError(s.t, err)
		return first, second
	}
	require.FailNow(s.t, "the rules came back each time before a pod could connect")
	return nil, nil
}

// answer lets both ends of a connection send, the server first.
func (s *suite) answer(a *attempt, v verdict, from, to *endpoint, c *connection) {
	s.t.Helper()
	client, served := c.addresses()
	add := func(from, to *endpoint, f flow) {
		st := s.wire.add(newStream(v, "gap TCP", from, to), f, false)
		s.eventually(settleWithin, func() bool { return st.position() > 0 }, "%s: no probes", st.name)
		a.own = append(a.own, st)
	}
	add(to, from, flow{from: served, to: client, flags: tcpFlagACK, seq: c.serverNext, ack: c.clientNext})
	add(from, to, flow{from: client, to: served, flags: tcpFlagACK, seq: c.clientNext, ack: c.serverNext})
}

// flushAll empties all tables of a node.
func (s *suite) flushAll(n *cluster.Node) {
	s.t.Helper()
	if backends[slices.Index(s.Nodes, n)] == iptables.NFT {
		n.Run(s.t, "nft", "flush", "ruleset")
		return
	}
	for _, program := range programs(iptables.Legacy) {
		for line := range strings.Lines(n.Run(s.t, program+"-save")) {
			if table, is := strings.CutPrefix(strings.TrimSpace(line), "*"); is {
				n.Run(s.t, "sh", "-c", "printf '*"+table+"\\nCOMMIT\\n' | "+program+"-restore -w 20")
			}
		}
	}
}

// addresses are those of the client and of the server.
func (c *connection) addresses() (client, server netip.AddrPort) {
	return addrPort(c.client.LocalAddr()), addrPort(c.client.RemoteAddr())
}

func addrPort(addr net.Addr) netip.AddrPort {
	at := addr.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}
