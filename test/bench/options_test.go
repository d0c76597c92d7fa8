package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/test/bench/results"
)

// size is that of a scenario. Pods and policies are per namespace.
type size struct {
	namespaces, pods, policies, local int
}

// sizes are the scenarios with a name, from small to large.
var sizes = map[string]size{
	small:           {namespaces: 10, pods: 20, policies: 20, local: 100},
	"1k":            {namespaces: 20, pods: 50, policies: 20, local: 100},
	results.Large:   {namespaces: 100, pods: 100, policies: 20, local: 100},
	results.Largest: {namespaces: 1000, pods: 100, policies: 20, local: 100},
}

// small is the name of the scenario that others are compared with.
const small = "small"

// custom is the name of a scenario whose size is not that of its name.
const custom = "custom"

// options are those of a run, from the environment.
type options struct {
	scenarios []string
	sizes     []size
	parts     []string // of all that is measured
	backend   iptables.Backend
	samples   int // of each delay
	rounds    int // of traffic
	idle      time.Duration
	churn     time.Duration
	flags     []string // of the agent, further ones
	hostile   int      // policies of the hostile namespace; 0: the scenario isn't wanted
}

// The parts of a run.
const (
	partCosts   = "costs"
	partDelays  = "delays"
	partStandIn = "standin"
	partTraffic = "traffic"
)

// has reports whether a part is wanted of the scenarios with a size. The hostile one has no
// parts.
func (o *options) has(part string) bool { return len(o.sizes) > 0 && slices.Contains(o.parts, part) }

func newOptions() (*options, error) {
	e := &environment{}
	o := &options{
		scenarios: e.list("SCENARIO", small+","+results.Large),
		parts:     e.list("PARTS", strings.Join([]string{partCosts, partDelays, partStandIn, partTraffic}, ",")),
		samples:   e.number("SAMPLES", 50),
		rounds:    e.number("ROUNDS", 15),
		idle:      time.Duration(e.number("IDLE", 120)) * time.Second,
		churn:     time.Duration(e.number("CHURN", 120)) * time.Second,
		flags:     strings.Fields(os.Getenv("AGENT_FLAGS")),
	}
	switch backend := e.text("BACKEND", "nft"); backend {
	case "nft":
		o.backend = iptables.NFT
	case "legacy":
		o.backend = iptables.Legacy
	default:
		return nil, fmt.Errorf("BACKEND=%s: use nft or legacy", backend)
	}
	if slices.Contains(o.scenarios, results.Hostile) {
		o.hostile = e.number("HOSTILE", 1000)
		o.scenarios = slices.DeleteFunc(o.scenarios, func(name string) bool { return name == results.Hostile })
	}
	for i, name := range o.scenarios {
		known, ok := sizes[name]
		if !ok {
			return nil, fmt.Errorf("SCENARIO=%s: use small, 1k, 10k, 100k or hostile, or several with commas", name)
		}
		s := size{
			namespaces: e.number("NAMESPACES", known.namespaces), pods: e.number("PODS", known.pods),
			policies: e.number("POLICIES", known.policies), local: e.number("LOCAL", known.local),
		}
		if s != known {
			o.scenarios[i] = custom
		}
		if err := s.validate(); err != nil {
			return nil, err
		}
		o.sizes = append(o.sizes, s)
	}
	return o, e.err
}

// validate keeps to what the addresses and the policies that are measured allow.
func (s size) validate() error {
	if s.namespaces < 2 || s.pods < 1 || s.policies < 3 || s.namespaces*s.pods > mostPods {
		return fmt.Errorf("NAMESPACES has to be 2 at least, PODS 1, POLICIES 3, and the pods %d at most", mostPods)
	}
	if s.local < 1 || s.local > min(mostLocal, s.namespaces*s.pods-2*churners) {
		return fmt.Errorf("LOCAL has to be between 1 and %d, and some less than there are pods", mostLocal)
	}
	return nil
}

// environment reads variables. Empty ones have their default.
type environment struct{ err error }

func (e *environment) text(name, otherwise string) string {
	if text := os.Getenv(name); text != "" {
		return text
	}
	return otherwise
}

func (e *environment) list(name, otherwise string) []string {
	return strings.Split(e.text(name, otherwise), ",")
}

func (e *environment) number(name string, otherwise int) int {
	text := e.text(name, strconv.Itoa(otherwise))
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		e.err = fmt.Errorf("%s=%s isn't a positive number", name, text)
	}
	return n
}
