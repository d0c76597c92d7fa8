package iptables

import "strings"

// owned reports whether a chain is Moat's: its name begins with the prefix, such as "MOAT-", or
// with its early form.
func owned(chain, prefix string) bool {
	return strings.HasPrefix(chain, prefix) || strings.HasPrefix(chain, early(prefix))
}

// early is the prefix of the chains to which a hook in PREROUTING leads: "MOAT_". Older agents,
// which have no such hook, don't touch chains with it.
func early(prefix string) string { return strings.TrimSuffix(prefix, "-") + "_" }

// hooked is the chain to which Moat's hook in a built-in chain leads.
func hooked(builtin, prefix string) string {
	if builtin == "PREROUTING" {
		return early(prefix) + builtin
	}
	return prefix + builtin
}
