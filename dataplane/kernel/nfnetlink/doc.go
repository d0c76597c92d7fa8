// Package nfnetlink asks the kernel's netfilter by netlink and reads its answers
// message by message (linux/netfilter/nfnetlink.h).
//
// The netlink library receives into a new buffer of 64 KiB each time, and the kernel
// allocates as much for every message of a dump. Where a dump has thousands of short
// messages, such as the headers of ipsets, that takes most of the time. A Socket reuses one
// buffer of its own, so the bytes of a Reply are valid only until the next message.
package nfnetlink
