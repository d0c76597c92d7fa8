package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// The load comes from this process, on the same cores as the node that it measures:
// what a node's rules cost is a smaller part of the whole than where the load comes
// from elsewhere. Plain system calls on threads of their own keep the load cheap. New
// flows show the node's part best: one system call sends a datagram and takes it all
// the way to the pod.

const (
	connectPort = tcpPort
	streamPort  = tcpPort + 1
	closedPort  = tcpPort + 2

	connectFor  = 250 * time.Millisecond
	streamFor   = 200 * time.Millisecond
	streamWarm  = 100 * time.Millisecond
	connectors  = 4
	acceptors   = 4
	manyStreams = 16
	flowBurst   = 20_000
	message     = 64
	backlog     = 1024
	gigabit     = 1e9 / 8
)

// forget empties the node's table of connections, so that every measurement begins
// alike.
func (l *lane) forget(t testing.TB) {
	t.Helper()
	require.NoError(t, l.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
}

// serve makes a pod answer requests, read what is sent, and drop datagrams.
func serve(t testing.TB, host *nodetest.Host) {
	t.Helper()
	var listener, sink int
	var streams net.Listener
	require.NoError(t, host.Do(func() (err error) {
		if listener, err = listenTCP(connectPort); err != nil {
			return err
		}
		if sink, err = listenUDP(udpPort); err != nil {
			return err
		}
		streams, err = net.Listen("tcp4", fmt.Sprintf(":%d", streamPort))
		return err
	}))
	var accepting sync.WaitGroup
	for range acceptors {
		accepting.Go(func() { answerRequests(listener) })
	}
	t.Cleanup(func() {
		_ = unix.Shutdown(listener, unix.SHUT_RDWR) // ends the acceptors
		accepting.Wait()
		_ = unix.Close(listener) // once: the number may soon be that of another file
		_ = unix.Close(sink)
		_ = streams.Close()
	})
	go func() {
		for {
			conn, err := streams.Accept()
			if err != nil {
				return
			}
			go drain(conn.(*net.TCPConn))
		}
	}()
}

func listenTCP(port int) (int, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.Bind(socket, &unix.SockaddrInet4{Port: port}); err != nil {
		return 0, err
	}
	return socket, unix.Listen(socket, backlog)
}

func answerRequests(listener int) {
	buffer := make([]byte, message)
	for {
		conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		if n, err := unix.Read(conn, buffer); err == nil && n > 0 {
			_, _ = unix.Write(conn, buffer[:n]) // A client that is gone is none of a server's business.
		}
		_ = unix.Close(conn)
	}
}

// received counts the bytes of all streams.
var received atomic.Int64

func drain(conn *net.TCPConn) {
	buffer := make([]byte, 256<<10)
	_ = blocking(conn, receiverCore, func(socket int) error {
		for {
			n, err := unix.Read(socket, buffer)
			if err != nil || n == 0 {
				return err
			}
			received.Add(int64(n))
		}
	})
}

// A single stream's ends have a core each: whether they share one by chance makes more
// of a difference than what a node costs.
const (
	senderCore   = 0
	receiverCore = 1
)

// alone says that there is a single stream.
var alone atomic.Bool

// blocking does something with a connection as a blocking socket, for a single stream on
// its core, and then closes it.
func blocking(conn *net.TCPConn, core int, do func(socket int) error) error {
	file, err := conn.File()
	if err := errors.Join(err, conn.Close()); err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	if alone.Load() {
		runtime.LockOSThread() // and not unlocked: the thread ends with its goroutine
		cores := unix.CPUSet{}
		cores.Set(core % runtime.NumCPU())
		if err := unix.SchedSetaffinity(0, &cores); err != nil {
			return err
		}
	}
	return do(int(file.Fd())) // which is made to block
}

// connections returns how many connections per second are opened, asked something,
// answered and closed.
func connections(t testing.TB, l *lane) float64 {
	t.Helper()
	var total atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, connectors)
	start := time.Now()
	for range connectors {
		group.Go(func() {
			errs <- l.client.Do(func() error {
				address, buffer := &unix.SockaddrInet4{Port: connectPort, Addr: l.server.Addrs[0].As4()}, make([]byte, message)
				for time.Since(start) < connectFor {
					if err := request(address, buffer); err != nil {
						return err
					}
					total.Add(1)
				}
				return nil
			})
		})
	}
	group.Wait()
	seconds := time.Since(start).Seconds()
	close(errs)
	for err := range errs {
		require.NoError(t, err, "%s", l)
	}
	return float64(total.Load()) / seconds
}

// request makes one connection. It ends it with a reset, or the ports of those that
// wait would soon be used up.
func request(address unix.Sockaddr, buffer []byte) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	if err := unix.SetsockoptLinger(socket, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(socket, address); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if _, err := unix.Write(socket, buffer); err != nil {
		return err
	}
	if n, err := unix.Read(socket, buffer); err != nil || n == 0 {
		return fmt.Errorf("reading the answer: %d bytes, %w", n, err)
	}
	return nil
}

// flows returns how many datagrams per second, each of a new connection, reach the
// pod.
func flows(t testing.TB, l *lane) float64 {
	t.Helper()
	before, start := datagrams(t, l.server), time.Now()
	require.NoError(t, l.client.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(socket) }()
		packet, address := newDatagram(l.client.Addrs[0], l.server.Addrs[0], message), &unix.SockaddrInet4{Addr: l.server.Addrs[0].As4()}
		for i := range flowBurst {
			setSource(packet, firstPort+i)
			if err := unix.Sendto(socket, packet, 0, address); err != nil {
				return err
			}
		}
		return nil
	}))
	seconds := time.Since(start).Seconds()
	return (datagrams(t, l.server) - before) / seconds
}

// datagrams returns how many datagrams came to a host's sockets, those that found no
// more room there included.
func datagrams(t testing.TB, host *nodetest.Host) float64 {
	t.Helper()
	var text []byte
	require.NoError(t, host.Do(func() (err error) {
		text, err = os.ReadFile("/proc/thread-self/net/snmp")
		return err
	}))
	var names []string
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "InDatagrams" || name == "RcvbufErrors" {
				n, err := strconv.ParseFloat(fields[i], 64)
				require.NoError(t, err)
				sum += n
			}
		}
	}
	return sum
}

// throughput returns the gigabits per second of some connections together.
func throughput(t testing.TB, l *lane, streams int) float64 {
	t.Helper()
	alone.Store(streams == 1)
	var conns []net.Conn
	require.NoError(t, l.client.Do(func() error {
		for range streams {
			conn, err := net.Dial("tcp4", netip.AddrPortFrom(l.server.Addrs[0], streamPort).String())
			if err != nil {
				return err
			}
			conns = append(conns, conn)
		}
		return nil
	}))
	var done atomic.Bool
	var group sync.WaitGroup
	errs := make(chan error, streams)
	for _, conn := range conns {
		group.Go(func() {
			block := make([]byte, 256<<10)
			errs <- blocking(conn.(*net.TCPConn), senderCore, func(socket int) (err error) {
				for err == nil && !done.Load() {
					_, err = unix.Write(socket, block)
				}
				return err
			})
		})
	}
	time.Sleep(streamWarm)
	before, start := received.Load(), time.Now()
	time.Sleep(streamFor)
	bytes, seconds := received.Load()-before, time.Since(start).Seconds()
	done.Store(true)
	group.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err, "%s", l)
	}
	return float64(bytes) / seconds / gigabit
}
