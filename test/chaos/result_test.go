package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/moat-dev/moat/test/junit"
)

// window is the part of a stream that a fault accounts for.
type window struct {
	stream   *stream
	from, to uint64
}

// owed is the number of the first probe that may not be missing: that of a newcomer is
// the first one that arrived.
func (w window) owed() uint64 {
	if w.stream.verdict == newcoming {
		return w.stream.firstThrough(w.from, w.to)
	}
	return w.from
}

// result is what became of the probes during a fault.
type result struct {
	Kind    string  `json:"kind"`
	Name    string  `json:"name"`
	At      float64 `json:"at"` // in seconds since the start
	Seconds float64 `json:"seconds"`

	Allowed   uint64 `json:"allowed"`   // probes
	Forbidden uint64 `json:"forbidden"` // probes
	Leaked    uint64 `json:"leaked"`
	Lost      uint64 `json:"lost"`

	// Probes of pods that had just started and that nothing isolates. Darkened are those
	// that were dropped although the pod and its node's agent had been there for
	// networkWithin. Those that were dropped before are counted apart, and so are those
	// that were dropped while the node had no agent. Network is how long such a pod
	// waited beside a living agent, in seconds.
	Newcoming    uint64  `json:"newcoming,omitempty"`
	Darkened     uint64  `json:"darkened"`
	Early        uint64  `json:"early,omitempty"`
	WithoutAgent uint64  `json:"withoutAgent,omitempty"`
	Network      float64 `json:"networkAfter,omitempty"`

	// What passed and what was dropped while the kernel's state was damaged and the
	// promised time for its repair wasn't over; and how long the damage was felt.
	DamagedLeaks  uint64  `json:"damagedLeaks,omitempty"`
	DamagedLosses uint64  `json:"damagedLosses,omitempty"`
	Repaired      float64 `json:"repairedAfter,omitempty"`

	// Disturbed is what the machine itself lost or delayed meanwhile. If that may
	// be why probes were lost, these are discarded and the fault is made once more.
	Disturbed string `json:"disturbed,omitempty"`
	Discarded bool   `json:"discarded,omitempty"`

	// Streams are those that went wrong.
	Streams []string `json:"streams,omitempty"`

	harms   bool
	lost    uint64 // also when it is discarded
	missed  uint64 // lost and darkened, likewise
	attempt *attempt
	windows []window
}

// tally counts what is known by now: a probe may arrive late.
func (r *result) tally() {
	r.Allowed, r.Forbidden, r.Leaked, r.Lost, r.Streams = 0, 0, 0, 0, nil
	r.DamagedLeaks, r.DamagedLosses, r.Repaired = 0, 0, 0
	r.Newcoming, r.Darkened, r.Early, r.WithoutAgent, r.Network = 0, 0, 0, 0, 0
	for _, w := range r.windows {
		r.add(w)
	}
	r.lost, r.missed = r.Lost, r.Lost+r.Darkened
	if r.Discarded {
		r.Lost, r.Darkened = 0, 0
	}
}

func (r *result) add(w window) {
	if w.stream.verdict == newcoming {
		w.from = r.addNewcoming(w)
	}
	wrong, last := w.stream.wrong(w.from, w.to)
	sent, count, damaged := &r.Allowed, &r.Lost, &r.DamagedLosses
	if w.stream.verdict == forbidden {
		sent, count, damaged = &r.Forbidden, &r.Leaked, &r.DamagedLeaks
	}
	*sent += w.to - w.from
	if wrong == 0 {
		return
	}
	var excused uint64
	if from, ok := r.attempt.damagedFrom(w); ok {
		until := min(w.stream.at(r.attempt.since+repairWithin)+timeEvery, w.to)
		excused, _ = w.stream.wrong(max(from, w.from), until)
		if excused > 0 {
			r.Repaired = max(r.Repaired, (last - r.attempt.since).Seconds())
		}
	}
	*damaged += excused
	*count += wrong - excused
	if wrong > excused {
		r.Streams = append(r.Streams, fmt.Sprintf("%d of %s, the last %.2fs after the fault began",
			wrong-excused, w.stream.name, (last-r.attempt.since).Seconds()))
	}
}

func (r *result) print() {
	fmt.Printf("%7.1fs %-48s %6.1fs   leaked %d of %d   lost %d of %d%s%s\n",
		r.At, r.Name, r.Seconds, r.Leaked, r.Forbidden, r.lost, r.Allowed, r.newcomers(), r.damage())
	for _, text := range r.Streams {
		fmt.Println("        ", text)
	}
}

func (r *result) damage() string {
	if !r.harms {
		return ""
	}
	return fmt.Sprintf("   repaired after %.1fs (%d passed, %d were dropped until then)", r.Repaired, r.DamagedLeaks, r.DamagedLosses)
}

// report is the JSON file.
type report struct {
	Seed    uint64  `json:"seed"`
	Quick   bool    `json:"quick"`
	Seconds float64 `json:"seconds"`
	Faults  int     `json:"faults"`
	Leaked  uint64  `json:"leaked"`
	Lost    uint64  `json:"lost"`

	Darkened uint64  `json:"darkened"`
	Network  float64 `json:"networkAfter"` // the longest
	Absent   float64 `json:"withoutAgentSeconds"`

	Passed  bool      `json:"passed"`
	Skipped int64     `json:"millisecondsWithoutProbes"`
	Results []*result `json:"results"`
}

// sum counts again, with what arrived in the meantime.
func (r *report) sum() {
	r.Faults, r.Leaked, r.Lost, r.Darkened, r.Network, r.Absent = 0, 0, 0, 0, 0, 0
	for _, result := range r.Results {
		result.tally()
		r.Leaked += result.Leaked
		r.Lost += result.Lost
		r.Darkened += result.Darkened
		if !result.Discarded {
			r.Faults++
			r.Network = max(r.Network, result.Network)
			r.Absent += (time.Duration(result.WithoutAgent) * probeEvery / newcomerStreams).Seconds()
		}
	}
}

func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("rendering the results: %w", err)
	}
	if err := os.WriteFile(dir+"/chaos.json", append(text, '\n'), 0o644); err != nil {
		return err
	}
	suite := junit.Suite{Name: "chaos", Time: junit.Seconds(time.Duration(r.Seconds * float64(time.Second)))}
	for _, result := range r.Results {
		message := ""
		if result.Leaked+result.Lost+result.Darkened > 0 {
			message = fmt.Sprintf("%d leaked, %d lost, %d darkened", result.Leaked, result.Lost, result.Darkened)
		}
		suite.Add(result.Name, time.Duration(result.Seconds*float64(time.Second)), message, strings.Join(result.Streams, "\n"))
	}
	return junit.Write(dir+"/junit.xml", []junit.Suite{suite})
}
