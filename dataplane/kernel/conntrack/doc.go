// Package conntrack reads the kernel's table of connections, finds those among them that are to
// be cut, and forgets those of addresses that have a new owner.
//
// A Scan works out what is to be cut (pure). A Table is the kernel's half.
//
// What always holds:
//   - The memory of a scan depends on the classes of isolated pods, and not on the length of the
//     table.
//   - Where it is unknown which end opened a connection, both ways have to be allowed.
package conntrack
