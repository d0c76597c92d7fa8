// Package kernel is about the packet filter of a node as a whole. The packages below it each
// know one part of the kernel's interface: iptables, ipset, conntrack, nfnetlink, nlattr.
//
// A sync that fails in one IP family goes on with the other: FamilyErrors says which family's
// rules are not in force, and why.
package kernel
