package policy

import (
	"errors"
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// Bounds of the errors that a policy keeps. Every agent of the cluster keeps them, and one
// policy has room for 85,000 selectors that can't be read.
const (
	maxUnreadable      = 8
	maxUnreadableBytes = 256 // of each text; a report has room for as many

	// readUpTo is after how many parts that can't be read the rest of a policy isn't read
	// any more: to find that 85,000 selectors are wrong takes a second of each agent.
	readUpTo = 1000
)

var errGaveUp = errors.New("not read, since so much before it can't be read")

// gaveUp reports whether the rest of the policy isn't read. It allows nothing then.
func (r *reader) gaveUp() bool { return r.unreadable >= readUpTo }

func (r *reader) port(np *networkingv1.NetworkPolicyPort) (Port, error) {
	if r.gaveUp() {
		return Port{}, errGaveUp
	}
	return parsePort(np)
}

// note keeps the text of one part that can't be read, and of the parts beyond
// maxUnreadable their number.
func (r *reader) note(field string, err error) {
	r.unreadable++
	kept := &r.policy.Unreadable
	switch rest := r.unreadable - maxUnreadable; {
	case rest <= 0:
		*kept = append(*kept, errors.New(shorten(fmt.Sprintf("%s: %v", field, err))))
	case rest == 1:
		*kept = append(*kept, moreUnreadable(rest))
	default:
		(*kept)[maxUnreadable] = moreUnreadable(rest)
	}
}

// moreUnreadable is how many parts can't be read whose texts aren't kept.
type moreUnreadable int

// Error implements error.
func (m moreUnreadable) Error() string {
	return fmt.Sprintf("parts of the policy beyond these that can't be read: %d", int(m))
}

// shorten bounds a text. It cuts between characters.
func shorten(text string) string {
	if len(text) <= maxUnreadableBytes {
		return text
	}
	return strings.ToValidUTF8(text[:maxUnreadableBytes-len("...")], "") + "..."
}
