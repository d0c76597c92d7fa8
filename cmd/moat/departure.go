package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"

	"github.com/moat-dev/moat/dataplane"
	"github.com/moat-dev/moat/dataplane/departure"
	"github.com/moat-dev/moat/dataplane/report"
)

const (
	// cleanWithin is how long an agent may take to clean its node. With the longest
	// decision and the stop of its manager it fits into the grace period of its pod, 60
	// seconds.
	cleanWithin = 20 * time.Second

	// cleanAgain is the rest before another try, when something was in the way.
	cleanAgain = time.Second

	// withdrawWithin is how long the API server may take to delete the report of a node
	// that is clean. What is left of the grace period is not much more.
	withdrawWithin = 3 * time.Second
)

// decideAtEnd begins to watch what the decision needs. Once ctx ends it decides what
// happens to the node's rules, while the agent runs on, then stops the agent, and sends
// the decision.
func (a *agent) decideAtEnd(ctx, running context.Context, stop context.CancelFunc) <-chan departure.Decision {
	decided := make(chan departure.Decision, 1)
	if a.lookout != nil {
		go a.lookout.Watch(running)
	}
	go func() {
		select {
		case <-running.Done(): // the manager failed
			return
		case <-ctx.Done():
		}
		defer stop()
		a.dataplane.Ending()
		decided <- a.decide(running)
	}()
	return decided
}

func (a *agent) decide(ctx context.Context) departure.Decision {
	if a.lookout == nil {
		return departure.Decision{Verdict: departure.Leave, Reason: "it does not know the namespace of its pod (POD_NAMESPACE), so nothing can tell it that Moat is being removed"}
	}
	return a.lookout.Decide(ctx, a.dataplane.NamespaceEnds)
}

// carryOut does what was decided. The agent has stopped, and still holds its health port.
func carryOut(decision departure.Decision, log logr.Logger) error {
	if decision.Verdict != departure.Clean {
		log.Info("The agent ends, and its rules stay in the kernel", "because", decision.Reason)
		return nil
	}
	log.Info("The agent ends, and removes its rules from the node", "because", decision.Reason)
	ctx, cancel := context.WithTimeout(context.Background(), cleanWithin)
	defer cancel()
	for {
		err := dataplane.Remove(ctx, &lines{log: log})
		if err == nil {
			log.Info("Nothing of Moat is left on the node, and no NetworkPolicy is enforced on it")
			return nil
		}
		log.Error(err, "The node is not clean yet", "retryIn", cleanAgain.String())
		select {
		case <-ctx.Done():
			return fmt.Errorf("cleaning the node: %w", err)
		case <-time.After(cleanAgain):
		}
	}
}

// withdraw deletes the report of a node that is clean. Often the API server refuses, since the
// removal of Moat takes the agents' rights away sooner. Then the report stays.
func (a *agent) withdraw() {
	ctx, cancel := context.WithTimeout(context.Background(), withdrawWithin)
	defer cancel()
	if err := report.Withdraw(ctx, a.live, a.node); err != nil {
		a.log.Info("The node is clean, but its NodeEnforcement stays: delete it by hand", "because", err.Error())
		return
	}
	a.log.Info("The node's NodeEnforcement is deleted, since it has no rules any more")
}

// lines logs what is written to it, a line each.
type lines struct{ log logr.Logger }

// Write takes whole lines.
func (l *lines) Write(text []byte) (int, error) {
	for line := range bytes.Lines(text) {
		l.log.Info("Cleaning the node", "done", string(bytes.TrimSpace(line)))
	}
	return len(text), nil
}
