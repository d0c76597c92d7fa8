package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Attributes of nft's messages (linux/netfilter/nf_tables.h).
const (
	chainTable, chainHandle, chainName, chainUse, chainCounters = 1, 2, 3, 6, 8

	ruleChain, ruleHandle, ruleExpressions, rulePosition = 2, 3, 4, 6

	expressionName, expressionData = 1, 2
)

// seed makes hashes that are equal within one run of the agent, and that no attacker can predict.
var seed = maphash.MakeSeed()

// generation returns the number that grows with every change of any nft table of
// the network namespace. It is 0 where the kernel has no nft.
func generation(s *nfnetlink.Socket) (uint32, error) {
	var number uint32
	err := s.Ask(nfnetlink.Request{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Command: unix.NFT_MSG_GETGEN}, func(r nfnetlink.Reply) {
		for kind, content := range nlattr.All(r.Attributes) {
			if kind == unix.NFTA_GEN_ID && len(content) == 4 {
				number = binary.BigEndian.Uint32(content)
			}
		}
	})
	if errors.Is(err, unix.EINVAL) { // no such subsystem
		return 0, nil
	}
	return number, err
}

// hashChains returns a hash of the chains of one family's table, without their rules.
func hashChains(s *nfnetlink.Socket, family uint8, table string) (uint64, error) {
	var hash maphash.Hash
	hash.SetSeed(seed)
	err := dump(s, unix.NFT_MSG_GETCHAIN, family, nil, hash.Reset, func(r nfnetlink.Reply) {
		if textOf(r.Attributes, chainTable) == table {
			hashChain(&hash, r.Attributes)
		}
	})
	return hash.Sum64(), err
}

// dump lists all objects of a kind, and starts again where a table was written at the same time.
// The kernel counts the writes of all tables together, so kube-proxy's writes interrupt a dump
// too. Each attempt starts with begin. A kernel without nft has no objects.
func dump(s *nfnetlink.Socket, command int, family uint8, attributes []byte, begin func(), handle func(nfnetlink.Reply)) error {
	request := nfnetlink.Request{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Command: command, Dump: true, Family: family, Attributes: attributes}
	err := nfnetlink.ErrChanging
	for n := 0; n < attempts && errors.Is(err, nfnetlink.ErrChanging); n++ {
		begin()
		err = s.Ask(request, handle)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// hashChain hashes what the chain does. It leaves out its number, how many rules name it, and its
// counters.
func hashChain(hash *maphash.Hash, content []byte) {
	hashAttributes(hash, content, func(kind int) bool { return kind == chainHandle || kind == chainUse || kind == chainCounters })
}

// hashRule hashes what the rule does. It leaves out the numbers by which rules are found, and
// counters.
func hashRule(hash *maphash.Hash, content []byte) {
	hashAttributes(hash, content, func(kind int) bool { return kind == ruleHandle || kind == rulePosition || kind == ruleExpressions })
	for kind, list := range nlattr.All(content) {
		if kind != ruleExpressions {
			continue
		}
		for _, expression := range nlattr.All(list) {
			counts := textOf(expression, expressionName) == "counter"
			hashAttributes(hash, expression, func(kind int) bool { return counts && kind == expressionData })
		}
	}
}

// hashAttributes adds the attributes that aren't left out, each with its type and length: so no
// two lists of attributes give the same bytes.
func hashAttributes(hash *maphash.Hash, content []byte, leftOut func(kind int) bool) {
	for kind, value := range nlattr.All(content) {
		if !leftOut(kind) {
			_ = hash.WriteByte(byte(kind))
			_ = hash.WriteByte(byte(len(value)))
			_ = hash.WriteByte(byte(len(value) >> 8))
			_, _ = hash.Write(value)
		}
	}
	_ = hash.WriteByte(0)
}

// chains lists the chains of all families.
func nftChains(s *nfnetlink.Socket) ([]Chain, error) {
	var chains []Chain
	begin := func() { chains = nil }
	err := dump(s, unix.NFT_MSG_GETCHAIN, unix.AF_UNSPEC, nil, begin, func(r nfnetlink.Reply) {
		chains = append(chains, Chain{NFT, nftFamily(r.Family), textOf(r.Attributes, chainTable), textOf(r.Attributes, chainName)})
	})
	return chains, err
}

// nftFamily names a family as the rest of Moat does. nft says ip and ip6.
func nftFamily(number uint8) string {
	switch number {
	case unix.NFPROTO_IPV4:
		return ruleset.IPv4.String()
	case unix.NFPROTO_IPV6:
		return ruleset.IPv6.String()
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	}
	return fmt.Sprint(number)
}

// textOf returns the attribute that holds text. It is empty where there is none.
func textOf(content []byte, wanted int) string {
	return strings.TrimRight(string(attribute(content, wanted)), "\x00")
}
