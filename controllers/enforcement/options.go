package enforcement

import "time"

// writeEvery is the least time between two writes of one object's status: while a
// Deployment rolls out, its pods change many times in a second.
const writeEvery = 2 * time.Second

// Options of the controllers of this package.
type Options struct {
	// AgentNamespace is where the agents' pods run.
	AgentNamespace string

	// writeEvery is set by tests.
	writeEvery time.Duration
}
