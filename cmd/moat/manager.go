package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// newScheme knows the kinds of Kubernetes and of Moat.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("building the scheme: %w", err)
	}
	return scheme, nil
}

// findAPIServer returns how to reach the API server, after it has given the
// libraries their logger.
func findAPIServer(logger logr.Logger) (*rest.Config, error) {
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	kubeconfig, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the API server (in a pod, or by KUBECONFIG): %w", err)
	}
	// The API server compresses each event of a watch by itself, once for every node: to
	// do without costs both ends less.
	kubeconfig.DisableCompression = true
	return kubeconfig, nil
}

// newClient connects to the API server without a cache, for commands that end.
func newClient(logger logr.Logger) (client.Client, error) {
	kubeconfig, err := findAPIServer(logger)
	if err != nil {
		return nil, err
	}
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	connected, err := client.New(kubeconfig, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("connecting to the API server: %w", err)
	}
	return connected, nil
}

// stopWithin is how long a manager may take to stop: well under what a pod is given, 30
// seconds for the operator's and 60 for an agent's.
const stopWithin = 5 * time.Second

// startManager runs a manager until the context ends. A manager whose caches are
// not full yet, since the API server is away, doesn't stop by itself
// (controller-runtime 0.25.2 waits for its cache runnables without a limit), so the wait
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
