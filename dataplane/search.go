package dataplane

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// policyID names one generation of one policy.
type policyID struct {
	uid        types.UID
	generation int64
}

// search finds the policies at fault among suspects that are all held back, by
// letting groups of them go. A group that can't go is halved, so that k policies at
// fault among n suspects take about 2k log2 n tries; those of the others that went
// stay gone. It says what to try and acts on nothing.
//
// Where no policy is at fault alone, but some together, those that come last are held.
type search struct {
	held   []policyID
	groups [][]policyID // to be tried, the last first
}

// newSearch begins with groups of at most so many; zero: with all of them.
func newSearch(suspects []policyID, most int) *search {
	s := &search{held: slices.Clone(suspects)}
	for group := range slices.Chunk(suspects, cmp.Or(most, max(1, len(suspects)))) {
		s.groups = append(s.groups, slices.Clone(group))
	}
	slices.Reverse(s.groups)
	return s
}

// next returns those to let go next; none at the end.
func (s *search) next() []policyID {
	if len(s.groups) == 0 {
		return nil
	}
	return s.groups[len(s.groups)-1]
}

// went notes that the group of next could go.
func (s *search) went() {
	group := s.take()
	s.held = slices.DeleteFunc(s.held, func(id policyID) bool { return slices.Contains(group, id) })
}

// failed notes that the group of next can't go as a whole.
func (s *search) failed() {
	group := s.take()
	if len(group) == 1 { // stays held
		return
	}
	half := len(group) / 2
	s.groups = append(s.groups, group[half:], group[:half])
}

func (s *search) take() []policyID {
	last := len(s.groups) - 1
	group := s.groups[last]
	s.groups = s.groups[:last]
	return group
}

// without returns those held but for a group.
func (s *search) without(group []policyID) []policyID {
	return slices.DeleteFunc(slices.Clone(s.held), func(id policyID) bool { return slices.Contains(group, id) })
}

// untried returns those that may be at fault or not.
func (s *search) untried() []policyID { return slices.Concat(s.groups...) }
