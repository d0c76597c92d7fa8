// Package iptables puts a Ruleset into the mangle table and reads it back.
//
// Rules are rendered in exactly the words that iptables-save uses. So what the kernel holds can
// be compared with what it should hold, line by line (render.go, table.go, diff.go: pure). All
// changes of one family are one transaction of "iptables-restore --noflush" (restore.go).
//
// What always holds:
//   - A transaction touches Moat's own chains and hooks, and nothing else.
//   - After an error, the table is as it was.
//   - An action that the renderer doesn't know drops. A match that it doesn't know makes
//     iptables-restore refuse the change: without the match, the rule would match more packets.
package iptables
