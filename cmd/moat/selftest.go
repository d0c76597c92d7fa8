package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/cmd/moat/selftest"
)

// selftestPoll is the wait between two tries.
const selftestPoll = 250 * time.Millisecond

// selftestOptions are the flags of selftest.
type selftestOptions struct {
	pod types.NamespacedName
	log logOptions
}

func selftestFlags() (*flag.FlagSet, *selftestOptions) {
	flags, o := flag.NewFlagSet("selftest", flag.ContinueOnError), &selftestOptions{}
	flags.StringVar(&o.pod.Namespace, "namespace", os.Getenv("POD_NAMESPACE"), "`namespace` of the pod that this runs in (default $POD_NAMESPACE)")
	flags.StringVar(&o.pod.Name, "pod", os.Getenv("POD_NAME"), "`name` of the pod that this runs in (default $POD_NAME)")
	o.log.addFlags(flags)
	return flags, o
}

func (o *selftestOptions) validate() error {
	if o.pod.Namespace == "" || o.pod.Name == "" {
		return errors.New("--namespace or --pod is empty: run it with helm test, or set POD_NAMESPACE and POD_NAME")
	}
	return nil
}

// runSelftest proves that an AppIsolation is enforced.
func runSelftest(ctx context.Context, args []string, stdout io.Writer) error {
	flags, options := selftestFlags()
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	logger, err := newLogger(os.Stderr, options.log)
	if err := errors.Join(err, options.validate()); err != nil {
		return &usageError{err: fmt.Errorf("selftest: %w", err)}
	}
	api, err := newClient(logger)
	if err != nil {
		return err
	}
	test := &selftest.Test{Client: api, Pod: options.pod, Out: stdout, Dial: selftest.DialTCP, Poll: selftestPoll}
	if err := test.Run(ctx); err != nil {
		return fmt.Errorf("the selftest failed: %w", err)
	}
	_, err = fmt.Fprintln(stdout, "AppIsolations are enforced")
	return err
}

// runSelftestServe is a server of the selftest.
func runSelftestServe(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("selftest serve", flag.ContinueOnError)
	address := flags.String("address", ":8080", "`address` to listen on")
	if err := parseFlags(flags, args); err != nil {
		return err
	}
	if err := validateAddress("--address", *address); err != nil {
		return &usageError{err: fmt.Errorf("selftest serve: %w", err)}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *address)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	return selftest.Serve(ctx, listener)
}
