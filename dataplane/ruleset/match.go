package ruleset

import (
	"fmt"
	"net/netip"
)

// HopLimitMatch compares the hop limit of an IPv6 packet.
type HopLimitMatch struct{ Limit uint8 }

// LengthMatch matches packets of First to Last bytes, IP header included.
type LengthMatch struct{ First, Last uint16 }

// longestPacket is the largest length that LengthMatch knows.
const longestPacket = 65535

// AtMost matches packets of no more than so many bytes, IP header included.
func AtMost(bytes uint16) LengthMatch { return LengthMatch{Last: bytes} }

// MoreThan matches packets of more than so many bytes, IP header included.
func MoreThan(bytes uint16) LengthMatch { return LengthMatch{First: bytes + 1, Last: longestPacket} }

// TranslatedMatch matches packets of connections whose destination was translated (DNAT).
type TranslatedMatch struct{}

// OpenMatch matches packets of connections that were let through before, without the
// errors that belong to them.
type OpenMatch struct {
	// NotOf excludes connections that were opened from or to one of these addresses, in
	// both directions. The zero value excludes none.
	NotOf netip.Prefix
}

// GroupFrameMatch matches packets that came in a link-layer frame to more than one host,
// and those that the node sends to itself.
type GroupFrameMatch struct{}

// RelatedMatch matches packets that belong to a connection without being part of it: ICMP errors
// about it, and connections that a helper of the kernel expects.
type RelatedMatch struct{}

// BridgePortMatch matches packets that came by a port of a bridge.
type BridgePortMatch struct{ Name string }

// AnyCode is the code of an ICMPMatch that matches every code.
const AnyCode = -1

// ICMPMatch compares the type and the code of an ICMP message of IPv4. The rule has a
// ProtocolMatch before it.
type ICMPMatch struct {
	Type uint8
	Code int // or AnyCode
}

// String returns what iptables-save prints: TYPE or TYPE/CODE.
func (m ICMPMatch) String() string {
	if m.Code == AnyCode {
		return fmt.Sprint(m.Type)
	}
	return fmt.Sprintf("%d/%d", m.Type, m.Code)
}

func (HopLimitMatch) isMatch()   {}
func (BridgePortMatch) isMatch() {}
func (LengthMatch) isMatch()     {}
func (TranslatedMatch) isMatch() {}
func (OpenMatch) isMatch()       {}
func (GroupFrameMatch) isMatch() {}
func (RelatedMatch) isMatch()    {}
func (ICMPMatch) isMatch()       {}
