// Package removal says, before Moat is removed from a cluster, which nodes the removal
// would leave with Moat's rules. It reads from the API server and changes nothing.
//
// An agent cleans its own node when Moat is removed. So removal reaches a node where an
// agent runs, and no other. A node without one matters only where rules may stand: its
// agent has once written a NodeEnforcement, or a container of an agent runs there.
package removal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// lookEvery is the time between two looks: lists of 5,000 nodes, pods and reports take
// about a second.
const lookEvery = 5 * time.Second

// ErrOutOfReach is the error of a check that found such nodes.
var ErrOutOfReach = errors.New("removal would leave Moat's rules on nodes")

// Check looks at one cluster.
type Check struct {
	Client client.Reader
	// Namespace is where Moat runs.
	Namespace string
	// Patience is how long the check waits where all that it found may pass by itself,
	// such as agents that an upgrade has just replaced. Zero: it looks once.
	Patience time.Duration
	// Out gets what was found.
	Out io.Writer

	// lookEvery and pageSize are set by tests; zero is the constant.
	lookEvery time.Duration
	pageSize  int64
}

// Run returns nil where removal reaches every node, and also where Moat isn't at work
// anywhere. The error wraps ErrOutOfReach where it doesn't; what Run has written to Out
// then names the nodes, says why, and what to do.
func (c *Check) Run(ctx context.Context) error {
	patient, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	reader := pagedReader{c.Client, cmp.Or(c.pageSize, pageSize)}
	for {
		seen, err := read(ctx, reader, c.Namespace)
		if err != nil {
			return err
		}
		found := findingsOf(seen)
		if len(found) == 0 {
			return c.print(summaryOf(seen))
		}
		if !mayPass(found) || !c.wait(patient) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := c.print(describe(found)); err != nil {
				return err
			}
			return fmt.Errorf("%w: %s", ErrOutOfReach, countsOf(found))
		}
		if err := c.print("waiting, since this may pass: " + countsOf(found) + "\n"); err != nil {
			return err
		}
	}
}

func (c *Check) print(text string) error {
	_, err := io.WriteString(c.Out, text)
	return err
}

// wait returns false where the patience ends before the next look.
func (c *Check) wait(patient context.Context) bool {
	next := time.NewTimer(cmp.Or(c.lookEvery, lookEvery))
	defer next.Stop()
	select {
	case <-patient.Done():
		return false
	case <-next.C:
		return true
	}
}
