package compile

import "github.com/moat-dev/moat/dataplane/ruleset"

// drop is the only maker of rules that drop, so that each of them has a reason.
func drop(why ruleset.DropReason, match ...ruleset.Match) ruleset.Rule {
	return ruleset.Rule{Match: match, Action: ruleset.Drop, Reason: why}
}
