package iptables

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// renderRule returns the rule as iptables-save prints it, without "-A CHAIN".
func renderRule(rule ruleset.Rule) string {
	words := append(addressWords(rule.Match), interfaceWords(rule.Match)...)
	for _, match := range rule.Match {
		if protocol, ok := match.(ruleset.ProtocolMatch); ok {
			words = append(words, "-p "+protocolName(protocol.Protocol))
		}
	}
	protocol := ""
	for _, match := range rule.Match {
		if p, ok := match.(ruleset.ProtocolMatch); ok {
			protocol = protocolName(p.Protocol)
		}
		if word := matchWord(match, protocol); word != "" {
			words = append(words, word)
		}
	}
	return strings.Join(append(words, actionWord(rule)), " ")
}

// addressWords renders addresses, which iptables-save prints first: the source, then the
// destination.
func addressWords(matches []ruleset.Match) []string {
	var words []string
	for _, side := range []ruleset.Side{ruleset.Source, ruleset.Destination} {
		for _, match := range matches {
			if m, ok := match.(ruleset.AddressMatch); ok && m.Side == side {
				words = append(words, sideFlag(side)+" "+addressAndMask(m))
			}
		}
	}
	return words
}

// interfaceWords renders interfaces, which stand behind the addresses: first the one by which the
// packet came.
func interfaceWords(matches []ruleset.Match) []string {
	var words []string
	for _, side := range []ruleset.Side{ruleset.Source, ruleset.Destination} {
		for _, match := range matches {
			if m, ok := match.(ruleset.InterfaceMatch); ok && m.Side == side {
				words = append(words, interfaceFlag(side)+" "+m.Name)
			}
		}
	}
	return words
}

func interfaceFlag(side ruleset.Side) string {
	if side == ruleset.Source {
		return "-i"
	}
	return "-o"
}

func sideFlag(side ruleset.Side) string {
	if side == ruleset.Source {
		return "-s"
	}
	return "-d"
}

func sideWord(side ruleset.Side) string {
	if side == ruleset.Source {
		return "src"
	}
	return "dst"
}

// addressAndMask prints a mask of leading ones as its length, any other mask as
// an address.
func addressAndMask(m ruleset.AddressMatch) string {
	if length, ok := prefixLength(m.Mask); ok {
		return fmt.Sprintf("%s/%d", m.Addr, length)
	}
	return fmt.Sprintf("%s/%s", m.Addr, m.Mask)
}

func prefixLength(mask netip.Addr) (int, bool) {
	length, ended := 0, false
	for _, b := range mask.AsSlice() {
		for bit := range 8 {
			set := b&(0x80>>bit) != 0
			if set && ended {
				return 0, false
			}
			ended = !set
			if set {
				length++
			}
		}
	}
	return length, true
}

// matchWord renders a match other than an address, an interface or a protocol,
// which have their place at the front.
//
//nolint:gocyclo // one case for each match
func matchWord(match ruleset.Match, protocol string) string {
	switch m := match.(type) {
	case ruleset.AddressMatch, ruleset.InterfaceMatch, ruleset.ProtocolMatch:
		return ""
	case ruleset.SetMatch:
		return fmt.Sprintf("-m set --match-set %s %s", m.Set, dimensions(m))
	case ruleset.AbsentMatch:
		return fmt.Sprintf("-m set ! --match-set %s %s", m.Set, sideWord(m.Side))
	case ruleset.PortMatch:
		return portWord(m.Ranges, protocol)
	case ruleset.ICMPv6TypeMatch:
		return fmt.Sprintf("-m icmp6 --icmpv6-type %d", m.Type)
	case ruleset.GroupMatch:
		return "-m addrtype --dst-type BROADCAST,MULTICAST"
	case ruleset.EstablishedMatch:
		return "-m conntrack --ctstate RELATED,ESTABLISHED"
	case ruleset.UnestablishedMatch:
		return "-m conntrack ! --ctstate RELATED,ESTABLISHED"
	case ruleset.ConnectionMatch:
		return "-m conntrack --ctstate ESTABLISHED --ctdir " + directionWord(m.Opener)
	case ruleset.MidStreamMatch:
		return "-m tcp ! --tcp-flags SYN,ACK SYN -m conntrack --ctstate INVALID,NEW"
	case ruleset.HopLimitMatch:
		return fmt.Sprintf("-m hl --hl-eq %d", m.Limit)
	case ruleset.LengthMatch:
		return fmt.Sprintf("-m length --length %d:%d", m.First, m.Last)
	case ruleset.BridgePortMatch:
		return "-m physdev --physdev-in " + m.Name
	case ruleset.TranslatedMatch:
		return "-m conntrack --ctstate DNAT"
	case ruleset.OpenMatch:
		return "-m conntrack --ctstate ESTABLISHED" + notOf(m.NotOf)
	case ruleset.GroupFrameMatch:
		return "-m pkttype ! --pkt-type unicast"
	case ruleset.RelatedMatch:
		return "-m conntrack --ctstate RELATED"
	case ruleset.ICMPMatch:
		return fmt.Sprintf("-m icmp --icmp-type %s", m)
	}
	// A rule with one condition less would match more, and may allow it. iptables-restore
	// refuses this one, and with it the whole change.
	return unknownMatch
}

// unknownMatch is a condition that iptables doesn't have.
const unknownMatch = "-m moat-unknown"

// directionWord is the direction of a connection's packets whose opener is at the given side.
func directionWord(opener ruleset.Side) string {
	if opener == ruleset.Source {
		return "ORIGINAL"
	}
	return "REPLY"
}

// notOf renders the addresses from and to which a connection wasn't opened. iptables-save prints a
// single address without its length.
func notOf(prefix netip.Prefix) string {
	if !prefix.IsValid() {
		return ""
	}
	text := prefix.String()
	if prefix.IsSingleIP() {
		text = prefix.Addr().String()
	}
	return fmt.Sprintf(" ! --ctorigsrc %s ! --ctorigdst %s", text, text)
}

// dimensions says which parts of a packet a set look-up compares.
func dimensions(m ruleset.SetMatch) string {
	side := sideWord(m.Side)
	switch m.Type {
	case ruleset.HashIP, ruleset.HashNet:
	case ruleset.HashIPPort:
		return side + "," + side
	case ruleset.HashIPPortIP:
		other := sideWord(ruleset.Source + ruleset.Destination - m.Side)
		return side + "," + other + "," + other
	}
	return side
}

func portWord(ranges []ruleset.PortRange, protocol string) string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = fmt.Sprint(r.First)
		if r.First != r.Last {
			texts[i] = fmt.Sprintf("%d:%d", r.First, r.Last)
		}
	}
	if len(ranges) == 1 {
		return fmt.Sprintf("-m %s --dport %s", protocol, texts[0])
	}
	return "-m multiport --dports " + strings.Join(texts, ",")
}

func protocolName(protocol uint8) string {
	switch protocol {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "ipv6-icmp"
	case 132:
		return "sctp"
	}
	return fmt.Sprint(protocol)
}

func actionWord(rule ruleset.Rule) string {
	switch rule.Action {
	case ruleset.Return:
		return "-j RETURN"
	case ruleset.Jump:
		return "-j " + rule.Target
	case ruleset.Goto:
		return "-g " + rule.Target
	case ruleset.Drop:
	}
	// An unknown action must close.
	return "-j DROP"
}
