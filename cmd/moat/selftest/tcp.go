package selftest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// greeting is what a server says to each client.
const greeting = "moat selftest\n"

// dialTimeout is how long a connection may take. TCP tries again after one second.
const dialTimeout = 2 * time.Second

// DialTCP connects to a server and reads its greeting.
func DialTCP(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("connecting to %s: %w", address, err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return fmt.Errorf("reading from %s, which took the connection: %w", address, errors.Join(errTaken, err))
	}
	if line != greeting {
		return fmt.Errorf("%s greets with %q: it is no server of the test", address, line)
	}
	return nil
}

// errTaken marks a connection that was made, even where it failed afterwards.
var errTaken = errors.New("the connection was made")

// isSilence says whether a connection got no answer at all. A refusal is one.
func isSilence(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() && !errors.Is(err, errTaken)
}

// Serve greets everyone who connects until the context ends.
func Serve(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("serving: %w", err)
		}
		// The greeting fits into the socket's buffer: this doesn't wait for the client.
		_, _ = conn.Write([]byte(greeting))
		_ = conn.Close()
	}
}
