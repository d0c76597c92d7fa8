package conformance

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// errSilence is the outcome of a probe that nobody answered.
var errSilence = errors.New("no answer")

// attempt is one connection to try.
type attempt struct {
	to       netip.AddrPort
	protocol string
	within   time.Duration
}

// parseAttempt reads the command `/agnhost connect ADDRESS --timeout=1s --protocol=tcp`.
func parseAttempt(command []string) (attempt, error) {
	if len(command) < 3 || command[0] != "/agnhost" || command[1] != "connect" {
		return attempt{}, fmt.Errorf("parsing command %q: want /agnhost connect ADDRESS", command)
	}
	to, err := netip.ParseAddrPort(command[2])
	if err != nil {
		return attempt{}, fmt.Errorf("parsing command %q: %w", command, err)
	}
	a := attempt{to: to}
	flags := flag.NewFlagSet("connect", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.DurationVar(&a.within, "timeout", 0, "")
	flags.StringVar(&a.protocol, "protocol", "tcp", "")
	if err := flags.Parse(command[3:]); err != nil {
		return attempt{}, fmt.Errorf("parsing command %q: %w", command, err)
	}
	return a, nil
}

// prober sends probes. Each has a source port of its own, for as long as the
// kernel may remember one: conntrack would let a probe that reuses the ports of an
// earlier one pass as part of that connection.
type prober struct {
	last atomic.Uint32
}

// firstPort and ports are the range of source ports.
const (
	firstPort = 2000
	ports     = 63000
)

func (p *prober) nextPort() int { return firstPort + int(p.last.Add(1)%ports) }

// send tries a connection from a host. It returns nil if it is answered,
// errSilence if nothing comes back, and else what went wrong.
func (p *prober) send(from *nodetest.Host, a attempt) error {
	if a.protocol == "sctp" {
		if from.SCTP(a.to.Addr(), a.to.Port(), a.within) {
			return nil
		}
		return errSilence
	}
	for {
		err := from.Do(func() error { return p.exchange(a) })
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			continue // with another port
		case isTimeout(err):
			return errSilence
		}
		return err
	}
}

func isTimeout(err error) bool {
	var network net.Error
	return errors.As(err, &network) && network.Timeout()
}

// exchange connects, and over UDP it waits for the echo.
func (p *prober) exchange(a attempt) error {
	deadline := time.Now().Add(a.within)
	dialer := net.Dialer{Deadline: deadline, LocalAddr: &net.TCPAddr{Port: p.nextPort()}}
	if a.protocol == "udp" {
		dialer.LocalAddr = &net.UDPAddr{Port: p.nextPort()}
	}
	conn, err := dialer.Dial(a.protocol, a.to.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if a.protocol != "udp" {
		return nil
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("moat")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 16))
	return err
}

func TestParseAttempt(t *testing.T) {
	got, err := parseAttempt([]string{"/agnhost", "connect", "[fd00::1]:80", "--timeout=1s", "--protocol=udp"})
	require.NoError(t, err)
	require.Equal(t, attempt{to: netip.MustParseAddrPort("[fd00::1]:80"), protocol: "udp", within: time.Second}, got)
	for _, command := range [][]string{
		nil,
		{"/agnhost", "netexec", "[fd00::1]:80"},
		{"/agnhost", "connect", "s-x-a.x.svc:80"},
		{"/agnhost", "connect", "10.0.0.1:80", "--udp"},
	} {
		_, err := parseAttempt(command)
		require.Error(t, err, "%q", command)
	}
}

// An answer, silence and anything else are three outcomes.
func TestOutcomes(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	from, to := node.AddPod(t, "10.244.1.10"), node.AddPod(t, "10.244.1.11")
	to.ServeTCP(t, 80)
	to.ServeUDP(t, 80)
	require.NoError(t, to.Do(func() error {
		silent, err := net.ListenPacket("udp", ":81")
		t.Cleanup(func() { _ = silent.Close() })
		return err
	}))
	var p prober
	send := func(protocol string, port uint16) error {
		return p.send(from, attempt{netip.AddrPortFrom(to.Addrs[0], port), protocol, 100 * time.Millisecond})
	}
	for _, protocol := range []string{"tcp", "udp"} {
		require.NoError(t, send(protocol, 80))
		require.ErrorIs(t, send(protocol, 82), syscall.ECONNREFUSED)
	}
	require.ErrorIs(t, send("udp", 81), errSilence)
	nobody := attempt{netip.MustParseAddrPort("10.244.1.99:80"), "tcp", 100 * time.Millisecond}
	require.ErrorIs(t, p.send(from, nobody), errSilence)
	require.ErrorIs(t, send("sctp", 81), errSilence)
}
