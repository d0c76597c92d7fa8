package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// stopWithin is how long a manager may take to stop: well under the 30 seconds
// that a pod is given.
const stopWithin = 5 * time.Second

// startManager runs a manager until the context ends. A manager whose caches are
// not full yet, since the API server is away, doesn't stop by itself
// (controller-runtime 0.25.2 waits for its cache runnables for ever), so the wait
// for it has a limit.
func startManager(ctx context.Context, mgr manager.Manager) error {
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(stopWithin):
		return nil
	}
}

// noAddress is the value of --metrics-address that serves no metrics.
const noAddress = "0"

// validateAddresses checks the flags that both commands have.
func validateAddresses(health, metrics string) error {
	if metrics == noAddress {
		return validateAddress("--health-address", health)
	}
	return errors.Join(validateAddress("--health-address", health), validateAddress("--metrics-address", metrics))
}

func validateAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s %q: want host:port or :port", flag, address)
	}
	if number, err := strconv.Atoi(port); err != nil || number < 0 || number > 65535 {
		return fmt.Errorf("%s %q: the port is no number between 0 and 65535", flag, address)
	}
	return nil
}
