package chaos

import (
	"math/bits"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// verdict is what policies say of a stream.
type verdict string

const (
	allowed   verdict = "allowed"
	forbidden verdict = "forbidden"
	// newcoming is of a pod that has just started and that nothing isolates: its probes
	// are allowed, but the pod may wait for its network.
	newcoming verdict = "newcoming"
)

// stream is probes of one kind from one pod to another, numbered from 0.
type stream struct {
	name    string
	verdict verdict
	from    *endpoint
	to      *endpoint
	packet  *packet
	dest    netip.Addr

	mu       sync.Mutex
	times    []time.Duration // when each 16th was sent, since the start
	sent     uint64
	unsent   uint64 // that the sender's own kernel refused
	arrived  record
	answered record // SYN ACKs, of streams that are answered
	answers  bool
	refused  record // the numbers that are unsent

	network network // of a pod that has just started
}

// timeEvery is which of the probes are timed.
const timeEvery = 16

// record says which numbers were seen.
type record []uint64

func (r *record) set(n uint64) {
	for uint64(len(*r)) <= n/64 {
		*r = append(*r, 0)
	}
	(*r)[n/64] |= 1 << (n % 64)
}

func (r record) has(n uint64) bool {
	return n/64 < uint64(len(r)) && r[n/64]&(1<<(n%64)) != 0
}

// count counts the numbers from a up to b, which it leaves out.
func (r record) count(a, b uint64) (count uint64) {
	for n := a; n < b; {
		if n%64 == 0 && n+64 <= b {
			if n/64 < uint64(len(r)) {
				count += uint64(bits.OnesCount64(r[n/64]))
			}
			n += 64
			continue
		}
		if r.has(n) {
			count++
		}
		n++
	}
	return count
}

// next numbers a probe that is about to be sent.
func (s *stream) next(now time.Duration) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent%timeEvery == 0 {
		s.times = append(s.times, now)
	}
	s.sent++
	return s.packet.number(s.sent - 1)
}

// takeBack is for a probe that the sender's kernel didn't take. It is counted
// as arrived where it should, and not as the fault's.
func (s *stream) takeBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsent++
	s.refused.set(s.sent - 1)
	if s.verdict != forbidden {
		s.arrived.set(s.sent - 1)
		s.answered.set(s.sent - 1)
	}
}

func (s *stream) arrive(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < s.sent {
		s.arrived.set(n)
	}
}

// answer notes a SYN ACK, whose number lacks the high 32 bits: no run is that long.
func (s *stream) answer(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n < s.sent {
		s.answered.set(n)
	}
}

func (s *stream) position() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

// wrong counts the probes from a up to b that had the fate that they must not
// have, and returns when the last of them was sent, to 16 ms.
func (s *stream) wrong(a, b uint64) (count uint64, last time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	arrived := s.arrived.count(a, b)
	if s.verdict == forbidden && arrived == 0 || s.verdict != forbidden && !s.answers && arrived == b-a {
		return 0, 0
	}
	for n := a; n < b; n++ {
		if s.isWrong(n) {
			count++
			last = s.times[n/timeEvery]
		}
	}
	return count, last
}

func (s *stream) isWrong(n uint64) bool {
	if s.verdict == forbidden {
		return s.arrived.has(n)
	}
	return !s.arrived.has(n) || s.answers && !s.answered.has(n)
}

// firstThrough returns the number of the first probe from a up to b that had the fate
// that it should have, or b.
func (s *stream) firstThrough(a, b uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := a; n < b; n++ {
		if !s.isWrong(n) && !s.refused.has(n) {
			return n
		}
	}
	return b
}

// sentAt returns when a probe was sent, to 16 ms on the early side.
func (s *stream) sentAt(n uint64) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[n/timeEvery]
}

// at returns the number of the first probe that was sent at a time or later, to 16
// ms on the early side.
func (s *stream) at(when time.Duration) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.times) - 1; i >= 0; i-- {
		if s.times[i] <= when {
			return uint64(i) * timeEvery
		}
	}
	return 0
}

// testFlow is a flow of UDP.
var testFlow = flow{from: netip.MustParseAddrPort("10.0.0.1:1"), to: netip.MustParseAddrPort("10.0.0.2:2")}

func TestStreamsCountWhatIsWrong(t *testing.T) {
	for _, v := range []verdict{allowed, forbidden} {
		s := &stream{verdict: v, packet: newPacket(testFlow, 1)}
		for i := range 200 {
			s.next(time.Duration(i) * time.Millisecond)
		}
		wrong := map[uint64]bool{0: true, 63: true, 64: true, 130: true}
		for n := range uint64(200) {
			if wrong[n] == (v == forbidden) {
				s.arrive(n)
			}
		}
		s.arrive(1000) // nobody sent it
		count, last := s.wrong(0, 200)
		require.EqualValues(t, 4, count, v)
		require.Equal(t, 128*time.Millisecond, last)
		count, _ = s.wrong(1, 130)
		require.EqualValues(t, 2, count, v)
		count, _ = s.wrong(65, 130)
		require.Zero(t, count, v)
		require.EqualValues(t, 112, s.at(127*time.Millisecond))
	}
}

func TestAStreamThatIsAnsweredCountsAnswers(t *testing.T) {
	s := &stream{verdict: allowed, answers: true, packet: newPacket(flow{
		from: netip.MustParseAddrPort("10.0.0.1:1"), to: netip.MustParseAddrPort("10.0.0.2:2"), flags: tcpFlagSYN,
	}, 1)}
	for range 3 {
		s.next(0)
		s.arrive(s.sent - 1)
	}
	s.answer(0)
	s.answer(2)
	count, _ := s.wrong(0, 3)
	require.EqualValues(t, 1, count)
	s.next(0)
	s.takeBack()
	count, _ = s.wrong(2, 4)
	require.Zero(t, count)
}
