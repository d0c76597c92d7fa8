package compile

import (
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Names of the chains that don't depend on content. Every chain of Moat begins
// with ChainPrefix and every set with SetPrefix: chains and sets with these prefixes are Moat's.
const (
	ChainPrefix  = "MOAT-"
	ForwardChain = ChainPrefix + "FORWARD"
	InputChain   = ChainPrefix + "INPUT"
	IngressChain = ChainPrefix + "INGRESS"
	EgressChain  = ChainPrefix + "EGRESS"
	LinkChain    = ChainPrefix + "LINK"
	AnswerChain  = ChainPrefix + "LINK-ANSWER"
	GuardChain   = ChainPrefix + "GUARD"

	// GuardFromChain and GuardToChain stand ahead of GuardChain, and let packets of other
	// nodes' pods pass: by their source, and by their destination.
	GuardFromChain = GuardChain + "-FROM"
	GuardToChain   = GuardChain + "-TO"

	SetPrefix = "moat-"
)

const (
	// dispatchMost is the most pods of a dispatch chain without branches. It has more where a
	// chain's name has no room for the bits that tell their addresses apart. Each pod costs a
	// packet a comparison or two, and so does each branch.
	dispatchMost = 8

	// branchBits is how many bits of an address choose a branch.
	branchBits = 2

	// longestChain is the most characters of a chain's name (XT_EXTENSION_MAXNAMELEN less
	// the final zero, linux/netfilter/x_tables.h).
	longestChain = 28
)

// digestLength is the number of characters of a content digest: 80 bits, which
// fits a chain name (28 characters) and a set name (31).
const digestLength = 16

var digestEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// IsolatedSet is the name of the set of the node's own isolated pods.
func IsolatedSet(family ruleset.Family, d policy.Direction) string {
	return fmt.Sprintf("%s%d-%s", SetPrefix, family, strings.ToLower(d.String()))
}

// LocalSet is the name of the set of all known pods of the node.
func LocalSet(family ruleset.Family) string {
	return fmt.Sprintf("%s%d-local", SetPrefix, family)
}

// ForeignSet is the name of the set of addresses of the node's pod CIDRs that pods of
// other nodes have.
func ForeignSet(family ruleset.Family) string {
	return fmt.Sprintf("%s%d-foreign", SetPrefix, family)
}

func (c *compiler) peerSetName(digest string) string {
	return fmt.Sprintf("%s%d-p-%s", SetPrefix, c.family, strings.ToLower(digest))
}

func (c *compiler) prefixSetName(digest string) string {
	return fmt.Sprintf("%s%d-n-%s", SetPrefix, c.family, strings.ToLower(digest))
}

func directionChain(d policy.Direction) string {
	if d == policy.Ingress {
		return IngressChain
	}
	return EgressChain
}

// branchChain is the name of a branch of a chain: that of the chain and one more character.
// A dash sets off the first of these characters.
func branchChain(chain string, branch int) string {
	if !strings.Contains(strings.TrimPrefix(chain, ChainPrefix), "-") { // the root
		chain += "-"
	}
	return fmt.Sprintf("%s%d", chain, branch)
}

// profileChain names a chain by the digest of its rules, one ruleText each.
func profileChain(d policy.Direction) func(digest string) string {
	return func(digest string) string { return fmt.Sprintf("%s%c-%s", ChainPrefix, d.String()[0], digest) }
}

// ruleText is equal for two rules exactly if they do the same. It contains the type of each
// match, since two types can print alike.
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

// bitsOf returns branchBits bits of an address. The bit is the lowest of them, counted from the
// address's lowest. branchBits divides eight.
func bitsOf(addr netip.Addr, bit int) int {
	bytes := addr.AsSlice()
	return int(bytes[len(bytes)-1-bit/8]) >> (bit % 8) & (1<<branchBits - 1)
}

// bitsMatch matches the addresses of which bitsOf returns value.
func bitsMatch(family ruleset.Family, side ruleset.Side, bit, value int) ruleset.Match {
	return ruleset.AddressMatch{Side: side, Addr: bitsAt(family, bit, value), Mask: bitsAt(family, bit, 1<<branchBits-1)}
}

// bitsAt is the address of which bitsOf returns value and all other bits are 0.
func bitsAt(family ruleset.Family, bit, value int) netip.Addr {
	bytes := make([]byte, 4)
	if family == ruleset.IPv6 {
		bytes = make([]byte, 16)
	}
	bytes[len(bytes)-1-bit/8] = byte(value << (bit % 8))
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}
