package roads

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netns"
)

const (
	// pingEvery is the time between two pings of a stream.
	pingEvery = 50 * time.Millisecond

	// answersWithin is how long an answer may be on its way on a busy machine.
	answersWithin = 500 * time.Millisecond
)

// stream is pings from one host to an address, at all times of a road.
type stream struct {
	from, to string
	target   netip.Addr
	// closedOn is the node whose rules forbid the pings. Empty: they are allowed.
	closedOn string

	mu    sync.Mutex
	pings []ping // by sequence number
}

// ping is one of them.
type ping struct {
	sent     time.Time
	answered bool
}

func (s *stream) String() string { return s.from + " -> " + s.to }

// seen returns a copy of the pings.
func (s *stream) seen() []ping {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]ping(nil), s.pings...)
}

// next notes a ping and returns its sequence number.
func (s *stream) next(now time.Time) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pings = append(s.pings, ping{sent: now})
	return uint16(len(s.pings) - 1)
}

func (s *stream) answer(number uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int(number) < len(s.pings) {
		s.pings[number].answered = true
	}
}

// pinger sends the pings of all streams that begin on one host.
type pinger struct {
	conn    *net.IPConn
	streams map[netip.Addr]*stream
	stop    chan struct{}
	stopped sync.WaitGroup
}

// startPinger pings until end is called.
func startPinger(ns netns.NsHandle, streams []*stream) (*pinger, error) {
	p := &pinger{streams: map[netip.Addr]*stream{}, stop: make(chan struct{})}
	for _, s := range streams {
		p.streams[s.target] = s
	}
	err := within(ns, func() (err error) {
		p.conn, err = net.ListenIP("ip4:icmp", nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("opening a socket for pings: %w", err)
	}
	go p.receive()
	p.stopped.Go(p.send)
	return p, nil
}

// end sends nothing any more and waits for the last answers.
func (p *pinger) end() {
	close(p.stop)
	p.stopped.Wait()
	time.Sleep(answersWithin)
	_ = p.conn.Close()
}

func (p *pinger) send() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			for addr, s := range p.streams {
				// A ping that the kernel can't send is one without an answer.
				_, _ = p.conn.WriteTo(echoRequest(s.next(now)), &net.IPAddr{IP: addr.AsSlice()})
			}
		}
	}
}

// receive notes answers until the socket is closed.
func (p *pinger) receive() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFromIP(buffer)
		if err != nil {
			return
		}
		addr, _ := netip.AddrFromSlice(from.IP)
		if s := p.streams[addr.Unmap()]; s != nil && n >= 8 && buffer[0] == echoReply {
			s.answer(binary.BigEndian.Uint16(buffer[6:]))
		}
	}
}

// ICMP (RFC 792): type, code, checksum, identifier, sequence number.
const (
	echoReply = 0
	echoAsk   = 8
	echoID    = 0x4d4f
)

// echoRequest has one identifier for all even numbers, so that these are one connection
// to the kernel, and one of its own for each odd number: that is a new connection.
func echoRequest(number uint16) []byte {
	id := uint16(echoID)
	if number%2 == 1 {
		id = number
	}
	message := []byte{echoAsk, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(message[4:], id)
	binary.BigEndian.PutUint16(message[6:], number)
	var sum uint32
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum+sum>>16))
	return message
}
