package compile

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Names of the chains that don't depend on content. Every chain of Moat begins
// with ChainPrefix and every set with SetPrefix: whatever has them is Moat's.
const (
	ChainPrefix  = "MOAT-"
	ForwardChain = ChainPrefix + "FORWARD"
	InputChain   = ChainPrefix + "INPUT"
	IngressChain = ChainPrefix + "INGRESS"
	EgressChain  = ChainPrefix + "EGRESS"
	LinkChain    = ChainPrefix + "LINK"
	AnswerChain  = ChainPrefix + "LINK-ANSWER"
	GuardChain   = ChainPrefix + "GUARD"

	SetPrefix = "moat-"
)

// leafCount is the number of leaves of the address tree. Sixteen bring the 250
// pods of a full node down to 16 comparisons at most leaves; more would cost more
// rules than they save.
const leafCount = 16

// digestLength is the number of characters of a content digest: 80 bits, which
// fits a chain name (28 characters) and a set name (31).
const digestLength = 16

var digestEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

func digest(content string) string {
	sum := sha256.Sum256([]byte(content))
	return digestEncoding.EncodeToString(sum[:])[:digestLength]
}

// IsolatedSet is the name of the set of the node's own isolated pods.
func IsolatedSet(family ruleset.Family, d policy.Direction) string {
	return fmt.Sprintf("%s%d-%s", SetPrefix, family, strings.ToLower(d.String()))
}

// LocalSet is the name of the set of all known pods of the node.
func LocalSet(family ruleset.Family) string {
	return fmt.Sprintf("%s%d-local", SetPrefix, family)
}

func peerSetName(family ruleset.Family, peers *policy.PeerSet) string {
	return fmt.Sprintf("%s%d-p-%s", SetPrefix, family, strings.ToLower(digest(peers.Key())))
}

func prefixSetName(family ruleset.Family, prefixes []netip.Prefix) string {
	return fmt.Sprintf("%s%d-n-%s", SetPrefix, family, strings.ToLower(digest(fmt.Sprint(prefixes))))
}

func directionChain(d policy.Direction) string {
	if d == policy.Ingress {
		return IngressChain
	}
	return EgressChain
}

func leafChain(d policy.Direction, leaf int) string {
	return fmt.Sprintf("%s-%X", directionChain(d), leaf)
}

// profileChain names a chain by its rules, one ruleText each.
func profileChain(d policy.Direction, rules string) string {
	return fmt.Sprintf("%s%c-%s", ChainPrefix, d.String()[0], digest(rules))
}

// ruleText is equal for two rules exactly if they are. The type of each match is
// part of it: two types can print alike.
func ruleText(rule ruleset.Rule) string {
	var text strings.Builder
	for _, match := range rule.Match {
		fmt.Fprintf(&text, "%T%v ", match, match)
	}
	fmt.Fprintln(&text, rule.Action, rule.Target)
	return text.String()
}

func subjectSide(d policy.Direction) ruleset.Side {
	if d == policy.Ingress {
		return ruleset.Destination
	}
	return ruleset.Source
}

func peerSide(d policy.Direction) ruleset.Side {
	if d == policy.Ingress {
		return ruleset.Source
	}
	return ruleset.Destination
}

// leafOf returns the leaf of an address: its low four bits.
func leafOf(addr netip.Addr) int {
	bytes := addr.As16()
	return int(bytes[15]) % leafCount
}

func leafMatch(family ruleset.Family, side ruleset.Side, leaf int) ruleset.Match {
	return ruleset.AddressMatch{Side: side, Addr: lowBits(family, byte(leaf)), Mask: lowBits(family, leafCount-1)}
}

// lowBits is the address whose last byte is b and whose other bytes are 0.
func lowBits(family ruleset.Family, b byte) netip.Addr {
	if family == ruleset.IPv6 {
		return netip.AddrFrom16([16]byte{15: b})
	}
	return netip.AddrFrom4([4]byte{3: b})
}
