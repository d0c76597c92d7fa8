package policy

import (
	"errors"
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// Bounds of the errors that a policy keeps. Every agent of the cluster keeps them, and one
// policy has room for 85,000 unreadable selectors.
const (
	maxUnreadable      = 8
	maxUnreadableBytes = 256 // of each text, as a report has room for

	// readUpTo is the number of unreadable parts after which the rest of a policy isn't read:
	// to find that 85,000 selectors are wrong takes a second of each agent.
	readUpTo = 1000
)

var errGaveUp = errors.New("not read, since so much before it can't be read")

// gaveUp reports whether the rest of the policy isn't read. Then the rest allows nothing.
func (r *reader) gaveUp() bool { return r.unreadable >= readUpTo }

func (r *reader) port(np *networkingv1.NetworkPolicyPort) (Port, error) {
	if r.gaveUp() {
		return Port{}, errGaveUp
	}
	return parsePort(np)
}

// note keeps the text of an unreadable part. Of the parts beyond maxUnreadable it keeps the
// number.
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

// moreUnreadable is the number of unreadable parts whose texts aren't kept.
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
