package compile

import (
	"crypto/sha256"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Names says what each name that is a digest stands for. A name has room for 80 bits. That is
// enough against chance, but not against an attacker who chooses both contents and searches for
// two with the same name. So all 256 bits are compared.
type Names map[string]Content

// Content is the whole digest of what a name stands for.
type Content [sha256.Size]byte

// digestName is the part of a digest that a name has room for.
func digestName(content Content) string {
	return digestEncoding.EncodeToString(content[:])[:digestLength]
}

// take returns the name of a content. It returns false where the name stands for another content
// in this output or in the kernel. Then the caller has to do without the name.
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

// closedChain is the chain of pods whose profile has no name of its own. It drops all packets.
func closedChain(d policy.Direction) string { return ChainPrefix + d.String()[:1] + "-CLOSED" }

// noteClash lists policies whose rules lack a set or chain since its name is taken, once each.
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
