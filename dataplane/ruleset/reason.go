package ruleset

// DropReason is why a rule drops. It stays in the agent: rules that differ in nothing else are
// the same to the kernel.
type DropReason uint8

// The reasons. docs/dataplane.md describes the chains that drop.
const (
	// NoReason is the reason of a rule that doesn't drop.
	NoReason DropReason = iota

	// NotAllowed: no rule of the policies that isolate the pod allows the packet.
	NotAllowed

	// NotProgrammed: the address is an isolated pod's, and no chain has its rules yet.
	NotProgrammed

	// NameTaken: the pod's profile has no chain, since another content has its name.
	NameTaken

	// Guarded: the address may be that of a new pod of this node, and isn't programmed yet.
	Guarded

	// Cut: the packet's connection was established, and policies forbid it now.
	Cut

	// ClosedLink: an address that the API doesn't know, on a link of pods that may not send
	// or receive everything.
	ClosedLink

	// ForeignRouter: a router advertisement that doesn't come from the node.
	ForeignRouter

	// ForgedSource: the source is not an address of the pod that sends.
	ForgedSource

	// IntoTunnel: a pod sends to a port on which nodes take packets for those of other nodes.
	IntoTunnel

	// OddError: an ICMP error that is too large, or of a type that hosts don't need.
	OddError

	// OddFrame: a packet to a single host in a frame to many, or to 0.0.0.0/8.
	OddFrame
)
