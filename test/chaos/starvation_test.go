package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// starvation is how long the threads of a process have waited for a processor. The zero
// value is that of no process.
type starvation struct {
	pid    int
	waited time.Duration
}

// starved returns the starvation of a node's agent.
func (a *agents) starved(i int) starvation {
	agent := a.nodes[i].Agent
	if agent == nil || !agent.Running() {
		return starvation{}
	}
	return starvationOf(agent.Pid())
}

func starvationOf(pid int) starvation {
	s := starvation{pid: pid}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, file := range files {
		text, _ := os.ReadFile(file) // A thread may have ended.
		// The time on a processor, the time of waiting for one, both in nanoseconds, …
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			waited, _ := strconv.ParseInt(fields[1], 10, 64)
			s.waited += time.Duration(waited)
		}
	}
	return s
}

// since returns how much it has grown; where the process is another one, all of it.
func (s starvation) since(before starvation) time.Duration {
	if s.pid != before.pid {
		return s.waited
	}
	return max(0, s.waited-before.waited) // threads end
}

func TestStarvation(t *testing.T) {
	require.Equal(t, 3*time.Second, starvation{1, 5 * time.Second}.since(starvation{1, 2 * time.Second}))
	require.Equal(t, 5*time.Second, starvation{2, 5 * time.Second}.since(starvation{1, 2 * time.Second}))
	require.Zero(t, starvation{}.since(starvation{1, 2 * time.Second}))
	require.NotZero(t, starvationOf(os.Getpid()).waited)
}
