package compile

import (
	"crypto/sha256"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Names says what each name that is a digest stands for. A name has room for 80 bits: enough
// that no two contents have the same by chance, and not enough that somebody who may
// choose both couldn't look for two that do. So all 256 bits are compared.
type Names map[string]Content

// Content is the whole digest of what a name stands for.
type Content [sha256.Size]byte

// digestName is the part of a digest that a name has room for.
func digestName(content Content) string {
	return digestEncoding.EncodeToString(content[:])[:digestLength]
}

// take returns the name of a content, or false where it stands for another one: in this
// output, or in what the kernel holds. What needs it has to do without.
func (c *compiler) take(name func(digest string) string, content string) (string, bool) {
	sum := Content(sha256.Sum256([]byte(content)))
	taken := name(c.digest(sum))
	for _, names := range []Names{c.held, c.names} {
		if other, known := names[taken]; known && other != sum {
			c.clash = true
			return "", false
		}
	}
	c.names[taken] = sum
	return taken, true
}

// closedChain is the chain of pods whose own has no name: it drops all.
func closedChain(d policy.Direction) string { return ChainPrefix + d.String()[:1] + "-CLOSED" }

// noteClash lists policies whose rules lack something for want of a name, once each.
func (c *compiler) noteClash(policies ...*policy.Policy) {
	if !c.clash {
		return
	}
	c.clash = false
	for _, p := range policies {
		if !slices.Contains(c.clashing, p) {
			c.clashing = append(c.clashing, p)
		}
	}
}
