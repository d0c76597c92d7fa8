package iptables

import (
	"errors"
	"regexp"
	"strings"
)

// Messages of iptables about a kernel that lacks something.
var (
	// extensionMissing is a warning of libxtables/xtables.c. With nft, it may also mean that
	// the module which serves every extension is missing.
	extensionMissing = regexp.MustCompile(`Extension (\S+) revision \d+ not supported, missing kernel module\?`)

	// tableMissing is a message of iptables-legacy.
	tableMissing = regexp.MustCompile("can't initialize (ip6?tables) table `(\\S+)': Table does not exist")
)

// MissingModule names the kernel modules of which one is missing, where a program failed and said
// so. Otherwise it returns the empty string.
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
