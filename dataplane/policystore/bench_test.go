package policystore_test

import (
	"testing"

	"github.com/moat-dev/moat/dataplane/policystore"
)

// A list of 10,000 policies of one namespace, of which a tenth fits.
func BenchmarkAListBeyondTheLimit(b *testing.B) {
	const policies = 10_000
	for b.Loop() {
		s := policystore.New(policies / 10 * 100)
		held := make([]*policystore.Held, policies)
		for i := range held {
			held[i] = s.Add(sized("a", i*7919%policies, 100))
		}
	}
}

// What an agent asks each second, and with each sync, in a cluster of 5,000 namespaces.
func BenchmarkNothingIsOmitted(b *testing.B) {
	s := policystore.New(1000)
	var held []*policystore.Held
	for n := range 5000 {
		held = append(held, s.Add(sized(string(rune('a'+n%26))+string(rune(0x4e00+n)), 1, 100)))
	}
	b.ResetTimer()
	for b.Loop() {
		if len(s.Fitting()) > 0 || s.Used() > 1 {
			b.Fatal()
		}
	}
	_ = held
}
