package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// listenCommand is this program's way to be the servers outside of the cluster.
const listenCommand = "listen"

// listen answers HTTP on every address until ctx ends. It prints one line when
// all of them are open.
func listen(ctx context.Context, addresses []string) error {
	failed := make(chan error, len(addresses))
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "Hello from outside of the cluster\n")
	})
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fmt.Errorf("listening on %s: %w", address, err)
		}
		go func() { failed <- http.Serve(listener, answer) }()
	}
	fmt.Println("listening")
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	}
}
