package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/backoff"
)

// RangeReader reads the ranges of nodes that are contested.
type RangeReader struct {
	model *Model
	live  client.Reader
	log   logr.Logger
	limit *rate.Limiter
	read  map[string]time.Time // when each node was read
}

// NewRangeReader returns what asks the API server for the ranges of contested nodes.
func NewRangeReader(m *Model, live client.Reader, log logr.Logger) *RangeReader {
	return &RangeReader{model: m, live: live, log: log, limit: rate.NewLimiter(rangesPerSecond, rangesBurst), read: map[string]time.Time{}}
}

// Run reads ranges until the context ends.
func (r *RangeReader) Run(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.model.contested:
		case <-again:
		}
		if !backoff.Sleep(ctx, rand.N(rangesSpread)) {
			return
		}
		err := r.readDue(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			r.log.Info("The ranges of nodes can't be read; addresses that pods of several nodes show are no pod's meanwhile", "error", err.Error())
			again = time.After(rangesRetry)
		case len(r.read) > 0:
			again = time.After(rangesAgain)
		}
	}
}

// readDue reads the Nodes that were not read for some time.
func (r *RangeReader) readDue(ctx context.Context) error {
	contested := r.model.contestedNodes()
	maps.DeleteFunc(r.read, func(node string, _ time.Time) bool { _, is := contested[node]; return !is })
	var errs []error
	for name := range contested {
		if last, known := r.read[name]; known && time.Since(last) < rangesAgain {
			continue
		}
		errs = append(errs, r.readOne(ctx, name))
	}
	return errors.Join(errs...)
}

// readOne reads a Node. One that isn't there has no ranges.
func (r *RangeReader) readOne(ctx context.Context, name string) error {
	if err := r.limit.Wait(ctx); err != nil {
		return fmt.Errorf("waiting to read Node %s: %w", name, err)
	}
	node := &corev1.Node{}
	// From the API server's cache: many agents may ask at once.
	err := r.live.Get(ctx, client.ObjectKey{Name: name}, node, &client.GetOptions{Raw: &metav1.GetOptions{ResourceVersion: "0"}})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading Node %s: %w", name, err)
	}
	node.Name = name
	r.read[name] = time.Now()
	r.model.SetRanges(node)
	return nil
}
