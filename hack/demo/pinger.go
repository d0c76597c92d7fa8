package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// pingerCommand is this program's way to ping addresses that don't exist yet.
const pingerCommand = "ping-all"

// pingEvery is how often each address is pinged. A pod answers as soon as it has its
// address, long before its first container runs.
const pingEvery = time.Millisecond

// tally says how many pings of an address were sent and answered.
type tally struct{ Sent, Answered int }

// pinger pings all of its addresses.
type pinger struct {
	conn *net.IPConn
	mu   sync.Mutex
	seen map[string]*tally // by address
}

// pingAll pings every address every millisecond until the input ends, and then writes
// the tally of each. It writes one line before the first ping.
func pingAll(addresses []string, in io.Reader, out io.Writer) error {
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return fmt.Errorf("opening a socket for pings: %w", err)
	}
	defer func() { _ = conn.Close() }()
	p := &pinger{conn: conn, seen: map[string]*tally{}}
	var targets []netip.Addr
	for _, text := range addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("pinging: %w", err)
		}
		targets = append(targets, addr)
		p.seen[addr.String()] = &tally{}
	}
	if _, err := fmt.Fprintln(out, "pinging"); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(ended)
	}()
	go p.receive()
	p.send(targets, ended)
	p.mu.Lock()
	defer p.mu.Unlock()
	return json.NewEncoder(out).Encode(p.seen)
}

func (p *pinger) send(targets []netip.Addr, ended <-chan struct{}) {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	message := echoRequest()
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
		}
		for _, addr := range targets {
			// Nobody may be there yet, and the node then says so.
			if _, err := p.conn.WriteTo(message, &net.IPAddr{IP: addr.AsSlice()}); err == nil {
				p.count(addr.String(), func(t *tally) { t.Sent++ })
			}
		}
	}
}

// receive counts answers until the socket is closed. Whatever else the kernel shows
// comes from other addresses or is no answer.
func (p *pinger) receive() {
	buffer := make([]byte, 1500)
	for {
		n, from, err := p.conn.ReadFromIP(buffer)
		if err != nil {
			return
		}
		if n >= 6 && buffer[0] == echoReply && binary.BigEndian.Uint16(buffer[4:]) == echoID {
			p.count(from.String(), func(t *tally) { t.Answered++ })
		}
	}
}

func (p *pinger) count(addr string, change func(*tally)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t := p.seen[addr]; t != nil {
		change(t)
	}
}

// ICMP (RFC 792): type, code, checksum, identifier, sequence number.
const (
	echoReply = 0
	echoAsk   = 8
	echoID    = 0x4d4f
)

func echoRequest() []byte {
	message := []byte{echoAsk, 0, 0, 0, 0, 0, 0, 1}
	binary.BigEndian.PutUint16(message[4:], echoID)
	var sum uint32
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	binary.BigEndian.PutUint16(message[2:], ^uint16(sum+sum>>16))
	return message
}
