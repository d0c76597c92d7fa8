package compile_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// The most important test of the compiler: in any cluster, the fate of any flow
// that crosses the compiled chains, on the sender's node and on the receiver's,
// is what policy.Evaluate says.

func TestCompileAgreesWithEvaluate(t *testing.T) {
	var total fates
	for seed := range uint64(600) {
		total.add(requireAgreement(t, policytest.RandomDice(seed, 900).Cluster(), 1))
	}
	// A generator whose flows nearly all share one fate would prove little.
	t.Logf("%+v", total)
	for _, count := range []int{total.open, total.allowed, total.denied} {
		require.Greater(t, count, total.all()/10)
	}
}

// fuzzEvery is the part of a cluster's flows that the fuzzer sends, one in so many:
// it learns more from many clusters than from all flows of a few. A prime, so that
// all ends, ports and protocols take their turn.
const fuzzEvery = 13

func FuzzCompileAgreesWithEvaluate(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(policytest.RandomBytes(seed, 300))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		requireAgreement(t, policytest.NewDice(data).Cluster(), fuzzEvery)
	})
}

// BenchmarkAgreement says how many flows a minute are compared on one core.
func BenchmarkAgreement(b *testing.B) {
	var total fates
	seed := uint64(0)
	for b.Loop() {
		total.add(requireAgreement(b, policytest.RandomDice(seed, 900).Cluster(), 1))
		seed++
	}
	b.ReportMetric(float64(total.all())/b.Elapsed().Minutes(), "flows/min")
}

// fates counts flows: open ones, between pods that no policy isolates, and allowed and denied
// ones.
type fates struct{ open, allowed, denied int }

func (f *fates) all() int { return f.open + f.allowed + f.denied }

func (f *fates) add(other fates) {
	f.open += other.open
	f.allowed += other.allowed
	f.denied += other.denied
}

// requireAgreement sends services between all ends of the cluster: one of so many.
func requireAgreement(t testing.TB, o *policytest.Objects, every int) (seen fates) {
	t.Helper()
	n := newNetwork(t, o)
	ends, services, turn := o.Ends(), o.Services(), 0
	for _, from := range ends {
		for _, to := range ends {
			if !filtered(from, to) {
				continue
			}
			judged := n.isolated(from, to)
			for _, service := range services {
				if turn++; turn%every != 0 {
					continue
				}
				switch allowed := n.requireFate(from, to, service.For(from.Addr)); {
				case !judged:
					seen.open++
				case allowed:
					seen.allowed++
				default:
					seen.denied++
				}
			}
		}
	}
	return seen
}

// filtered leaves out what the chains never see: two families, and traffic between
// ends that are no pods.
func filtered(from, to policytest.End) bool {
	return from.Addr.Is4() == to.Addr.Is4() && (from.Pod || to.Pod)
}
