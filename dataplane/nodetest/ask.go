package nodetest

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Seen is how a server sees what reached it.
type Seen struct {
	// Client is the source address.
	Client netip.Addr
	// Server is the destination address, which tells servers behind one address
	// from each other. A server of UDP doesn't know it.
	Server netip.Addr
}

// Ask connects to what ServeTCP ("tcp") or ServeUDP ("udp") serves and returns what
// it sees.
func (h *Host) Ask(network string, to netip.Addr, port uint16, within time.Duration) (seen Seen, err error) {
	err = h.Do(func() error {
		conn, err := dial(network, to, port, within)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		seen, err = ask(network, conn)
		return err
	})
	return seen, err
}

func dial(network string, to netip.Addr, port uint16, within time.Duration) (net.Conn, error) {
	if network == "udp" {
		return dialUDP(to, port)
	}
	return net.DialTimeout(network, netip.AddrPortFrom(to, port).String(), within)
}

func ask(network string, conn net.Conn) (Seen, error) {
	var answer []byte
	var err error
	if network == "udp" {
		if _, err := conn.Write([]byte("moat")); err != nil {
			return Seen{}, err
		}
		answer = make([]byte, 128)
		var n int
		n, err = conn.Read(answer)
		answer = answer[:n]
	} else {
		answer, err = io.ReadAll(conn)
	}
	if err != nil {
		return Seen{}, err
	}
	var ends [2]netip.Addr
	for i, field := range strings.Fields(string(answer)) {
		end, err := netip.ParseAddrPort(field)
		if err != nil {
			return Seen{}, fmt.Errorf("reading the answer %q: %w", answer, err)
		}
		ends[i] = end.Addr().Unmap()
	}
	return Seen{Client: ends[0], Server: ends[1]}, nil
}
