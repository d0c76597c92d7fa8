package roads

import (
	"fmt"
	"time"
)

// tally is what became of pings.
type tally struct {
	sent, answered int
	first, last    time.Time // pings that fared as they should not: see wrong
}

// between counts the pings that were sent from one moment on and before another.
func between(pings []ping, from, until time.Time) (sent, answered int) {
	for _, p := range pings {
		if p.sent.Before(from) || !p.sent.Before(until) {
			continue
		}
		sent++
		if p.answered {
			answered++
		}
	}
	return sent, answered
}

// span is the time of a road in which the rules of nodes stand for sure, and the time
// in which nothing is said of them.
type span struct {
	begun time.Time // of the road
	left  time.Time // the removal began; zero: there was none
	ended time.Time
}

// wrong returns the pings of a stream that fared otherwise than they have to at all
// times of the road: closed ones that were answered while rules stood for sure, and open
// ones that weren't answered.
func wrong(s *stream, o outcome, at span) tally {
	until, bad := at.ended, func(p ping) bool { return !p.answered }
	if s.closedOn != "" {
		bad = func(p ping) bool { return p.answered }
		switch {
		case !o.before(s.closedOn):
			until = at.begun // rules come, or never stood
		case !o.after(s.closedOn):
			until = at.left
		}
	}
	var t tally
	for _, p := range s.seen() {
		if p.sent.Before(at.begun) || !p.sent.Before(until) {
			continue
		}
		t.sent++
		if p.answered {
			t.answered++
		}
		if bad(p) {
			if t.first.IsZero() {
				t.first = p.sent
			}
			t.last = p.sent
		}
	}
	return t
}

// verdicts sums up the streams: how many pings leaked, how many were lost, and which
// streams did so when.
func verdicts(streams []*stream, o outcome, at span) (leaked, lost int, faults []string) {
	for _, s := range streams {
		t := wrong(s, o, at)
		count, word := t.sent-t.answered, "lost"
		if s.closedOn != "" {
			count, word = t.answered, "leaked"
			leaked += count
		} else {
			lost += count
		}
		if count > 0 {
			faults = append(faults, fmt.Sprintf("%s: %d of %d pings %s, from %.1f s to %.1f s after the road's begin",
				s, count, t.sent, word, t.first.Sub(at.begun).Seconds(), t.last.Sub(at.begun).Seconds()))
		}
	}
	return leaked, lost, faults
}

// settled says what of a stream isn't yet as it has to be, by the pings of the second
// that ended when answers to them were due. Empty: it is.
func settled(s *stream, stand places, now time.Time) string {
	until := now.Add(-answersWithin)
	sent, answered := between(s.seen(), until.Add(-time.Second), until)
	switch closed := s.closedOn != "" && stand(s.closedOn); {
	case sent == 0:
		return s.String() + ": no pings yet"
	case closed && answered > 0:
		return fmt.Sprintf("%s: %d of %d answered", s, answered, sent)
	case !closed && answered < sent:
		return fmt.Sprintf("%s: %d of %d silent", s, sent-answered, sent)
	}
	return ""
}
