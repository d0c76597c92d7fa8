package selector_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

// candidates are the sets that the random tests want, now one and now another.
var candidates = map[string]policy.PeerSet{
	"a-web":      inNamespace("a", "role=web"),
	"a-all":      inNamespace("a", ""),
	"b-not-web":  inNamespace("b", "role!=web"),
	"blue":       across("team=blue", ""),
	"not-blue":   across("team!=blue", "role in (web, db)"),
	"both-a":     inNamespace("a", "role=web,x=y"),
	"both":       across("", "x in (y, z),role=web"),
	"blue-web":   across("team in (blue, green)", "role==web"),
	"not-x":      across("team", "!x"),
	"every":      across("", ""),
	"every-http": named(across("", ""), "http"),
	"blue-http":  named(across("team=blue", "role"), "http"),
}

// steps turns random bytes into operations on an index and on the truth.
type steps struct {
	data  []byte
	index *selector.Index
	truth truth
	want  map[string]policy.PeerSet
	known known
}

func newSteps(data []byte) *steps {
	return &steps{
		data:  data,
		index: selector.NewIndex(),
		truth: truth{map[types.NamespacedName]*policy.Pod{}, policy.Namespaces{}},
		want:  map[string]policy.PeerSet{},
		known: known{},
	}
}

// choose returns a number below n; 0 when the bytes are used up.
func (s *steps) choose(n int) int {
	if len(s.data) == 0 {
		return 0
	}
	b := s.data[0]
	s.data = s.data[1:]
	return int(b) % n
}

func pick[T any](s *steps, options ...T) T { return options[s.choose(len(options))] }

func (s *steps) step() {
	namespace := pick(s, "a", "b", "c")
	switch s.choose(10) {
	case 0:
		labels := pick(s, nil, map[string]string{"team": "blue"}, map[string]string{"team": "green"})
		s.index.SetNamespace(namespace, labels)
		s.truth.namespaces[namespace] = labels
	case 1:
		s.index.DeleteNamespace(namespace)
		delete(s.truth.namespaces, namespace)
	case 2:
		s.rewant()
	case 3, 4:
		key := types.NamespacedName{Namespace: namespace, Name: pick(s, "1", "2", "3")}
		s.index.DeletePod(key)
		delete(s.truth.pods, key)
	default:
		pod := s.pod(namespace)
		s.index.SetPod(pod)
		s.truth.pods[pod.Key()] = pod
	}
}

// pod draws its address from few, so that pods share one now and then.
func (s *steps) pod(namespace string) *policy.Pod {
	pod := newPod(namespace+"/"+pick(s, "1", "2", "3"), pick(s, "", "role=web", "role=db", "role=web,x=y"))
	if n := s.choose(6); n > 0 {
		pod = newPod(namespace+"/"+pod.Name, pod.Labels.String(), fmt.Sprintf("10.0.0.%d", n))
	}
	if n := s.choose(4); n > 0 {
		serving(pod, "http", uint16(8080+n))
	}
	return pod
}

func (s *steps) rewant() {
	s.want = map[string]policy.PeerSet{}
	for _, name := range slices.Sorted(maps.Keys(candidates)) {
		if s.choose(2) == 0 {
			s.want[name] = candidates[name]
		}
	}
	s.index.Want(s.want)
	// The kernel's set goes with the last rule that names it.
	for name := range s.known {
		if _, keep := s.want[name]; !keep {
			delete(s.known, name)
		}
	}
}

// requireTruth compares what the changes add up to, and what the index says it
// holds, with a recomputation.
func (s *steps) requireTruth(t *testing.T) {
	t.Helper()
	s.known.apply(t, s.index)
	for name, peers := range s.want {
		want := s.truth.list(peers)
		require.Equal(t, want, s.known.list(name), "%s, as the changes add up", name)
		require.Equal(t, want, elements(s.index, name), "%s, as the index holds it", name)
	}
}

func runSteps(t *testing.T, data []byte) {
	t.Helper()
	s := newSteps(data)
	for len(s.data) > 0 {
		s.step()
		// Now and then several steps come between two calls of Changes.
		if s.choose(3) != 0 {
			s.requireTruth(t)
		}
	}
	s.requireTruth(t)
}

func TestChangesAddUpToTheTruth(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			runSteps(t, randomBytes(seed, 1000))
		})
	}
}

func FuzzChangesAddUpToTheTruth(f *testing.F) {
	for seed := range uint64(5) {
		f.Add(randomBytes(seed, 200))
	}
	f.Fuzz(runSteps)
}

func randomBytes(seed uint64, n int) []byte {
	source := rand.New(rand.NewPCG(seed, 0))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(source.Uint32())
	}
	return data
}
