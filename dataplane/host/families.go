package host

import (
	"os"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Families leaves out IPv6 where the kernel has none: there is no such
// traffic to filter then. The module may be loaded later.
func Families() []ruleset.Family {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return []ruleset.Family{ruleset.IPv4}
	}
	return ruleset.Families()
}
