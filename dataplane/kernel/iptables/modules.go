package iptables

import (
	"errors"
	"regexp"
	"strings"
)

// Words of iptables for what its kernel lacks.
var (
	// extensionMissing is a warning of libxtables/xtables.c. With nft, the module that
	// serves every extension may be the one that is missing.
	extensionMissing = regexp.MustCompile(`Extension (\S+) revision \d+ not supported, missing kernel module\?`)

	// tableMissing is what iptables-legacy says.
	tableMissing = regexp.MustCompile("can't initialize (ip6?tables) table `(\\S+)': Table does not exist")
)

// MissingModule names the kernel modules of which one lacks, as a program said that
// failed for it; empty for none.
func MissingModule(err error) string {
	var failed *Error
	if !errors.As(err, &failed) {
		return ""
	}
	if extension := extensionMissing.FindStringSubmatch(failed.Stderr); extension != nil {
		module := "xt_" + extension[1]
		if strings.Contains(failed.Program, "nft") {
			module += " or nft_compat"
		}
		return module
	}
	if table := tableMissing.FindStringSubmatch(failed.Stderr); table != nil {
		return strings.TrimSuffix(table[1], "s") + "_" + table[2]
	}
	return ""
}
