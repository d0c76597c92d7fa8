package compile

import (
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// ErrorChain bounds packets that belong to a connection without being part of it: ICMP errors,
// which quote a packet. A program that knows a connection can send an error about it, with any
// bytes in the place of the quotation.
const ErrorChain = ChainPrefix + "ERROR"

const (
	// errorMost4 and errorMost6 are the most bytes of an ICMP error, IP header included
	// (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c).
	errorMost4 = 576
	errorMost6 = 1280

	// errorMostSent is the same for errors from pods that may not send everything: enough to
	// quote the headers of a packet, or a whole small datagram. Only routers send larger errors:
	// those that say that a packet is too big.
	errorMostSent = 256
)

// kindOfError is a type of ICMP of one family.
type kindOfError = []ruleset.Match

func icmpv4(icmpType uint8, code int) kindOfError {
	return kindOfError{ruleset.ProtocolMatch{Protocol: uint8(policy.ICMP)}, ruleset.ICMPMatch{Type: icmpType, Code: code}}
}

// errorsOf describes the errors of a family.
func errorsOf(family ruleset.Family) (protocol policy.Protocol, most uint16, useless []kindOfError, tooBig kindOfError) {
	if family == ruleset.IPv4 {
		// 4 is source quench, which is obsolete (RFC 6633). 5 is redirect, which
		// routers send to their neighbours. 3/4 is fragmentation needed.
		return policy.ICMP, errorMost4, []kindOfError{icmpv4(4, ruleset.AnyCode), icmpv4(5, ruleset.AnyCode)}, icmpv4(3, 4)
	}
	return policy.ICMPv6, errorMost6, []kindOfError{icmpv6(137)}, icmpv6(2)
}

// passing lets the packets of open connections return, and leads errors about them to the error
// chain. These rules stand first in a chain to which all packets come.
func (c *compiler) passing() []ruleset.Rule {
	if !c.judgesErrors {
		return nil
	}
	return []ruleset.Rule{
		{Match: c.open(), Action: ruleset.Return},
		{Match: []ruleset.Match{ruleset.RelatedMatch{}}, Action: ruleset.Goto, Target: ErrorChain},
	}
}

// errorChain drops errors from and to isolated pods that are too large or of no use. All other
// errors pass the end of the chain.
func (c *compiler) errorChain() {
	if !c.judgesErrors {
		return
	}
	protocol, most, useless, tooBig := errorsOf(c.family)
	isError := ruleset.ProtocolMatch{Protocol: uint8(protocol)}
	var rules []ruleset.Rule
	for d := range policy.Direction(policy.Directions) {
		subject := c.isolated(d)
		if c.host.has(ICMP) {
			for _, kind := range useless {
				rules = append(rules, drop(ruleset.OddError, append(kind[:len(kind):len(kind)], subject)...))
			}
		}
		if c.host.has(Length) {
			rules = append(rules, drop(ruleset.OddError, isError, subject, ruleset.MoreThan(most)))
		}
	}
	if c.host.has(ICMP) && c.host.has(Length) {
		rules = append(rules,
			ruleset.Rule{Match: tooBig, Action: ruleset.Return},
			drop(ruleset.OddError, isError, c.isolated(policy.Egress), ruleset.MoreThan(errorMostSent)))
	}
	c.addChain(ErrorChain, rules...)
}
