package conformance

import (
	"fmt"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/stretchr/testify/require"
)

// What Cyclonus runs without exclusions.
const (
	allCases = 230
	allSteps = 256
)

// sampleEvery is which part of the cases a quick run takes. Neighbouring cases
// differ in little, so every fifth sees every kind.
const sampleEvery = 5

var namespaces = []string{"x", "y", "z"}

// generate returns all cases, numbered in their descriptions, which aren't unique.
// Their ipBlocks are around an address.
func generate(addr string) []*generator.TestCase {
	cases := generator.NewTestCaseGenerator(true, addr, namespaces, nil, nil).GenerateAllTestCases()
	for i, c := range cases {
		c.Description = fmt.Sprintf("%03d %s", i+1, c.Description)
		for _, step := range c.Steps {
			// The generator shares some of these between cases, and between calls.
			if step.Probe.Mode != generator.ProbeModePodIP {
				step.Probe.Mode = generator.ProbeModePodIP
			}
		}
	}
	return cases
}

// sample returns every fifth case, and those that change something after the
// first probe.
func sample(cases []*generator.TestCase) []*generator.TestCase {
	var sampled []*generator.TestCase
	for i, c := range cases {
		if i%sampleEvery == 0 || len(c.Steps) > 1 {
			sampled = append(sampled, c)
		}
	}
	return sampled
}

func countSteps(cases []*generator.TestCase) (steps int) {
	for _, c := range cases {
		steps += len(c.Steps)
	}
	return steps
}

func TestAllCasesAreGenerated(t *testing.T) {
	for _, addr := range []string{"10.244.3.24", "fd00:10:244:3::18"} {
		cases := generate(addr)
		require.Len(t, cases, allCases)
		require.Equal(t, allSteps, countSteps(cases))
		for _, c := range cases {
			for _, step := range c.Steps {
				for _, action := range step.Actions {
					if pod := action.CreatePod; pod != nil {
						require.Contains(t, placement, pod.Namespace+"/"+pod.Pod)
					}
				}
			}
		}
	}
}
