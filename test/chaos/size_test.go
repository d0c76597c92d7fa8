package chaos

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Variables of the environment.
const (
	quickVariable   = "QUICK"         // 1: the short form
	seedVariable    = "SEED"          // of the random moments; without it, a new one
	faultsVariable  = "FAULTS"        // kinds to make, separated by commas; without it, all
	awayVariable    = "APISERVERAWAY" // how long the API server is away, such as 30s
	resultsVariable = "MOAT_RESULTS"  // the folder for the results; without it, none
)

// size is how much of everything there is.
type size struct {
	starts, kills, upgrades, policies int
	newcomers                         int           // pods that start and that nothing isolates
	flushes                           int           // of each node
	away                              time.Duration // of the API server
	held                              time.Duration // of the lock of iptables, and other long faults
	limit                             time.Duration // of the whole run
	kinds                             []string      // empty: all
}

var (
	full  = size{starts: 200, newcomers: 20, flushes: 5, kills: 50, upgrades: 20, policies: 500, away: 5 * time.Minute, held: 30 * time.Second, limit: 19 * time.Minute}
	quick = size{starts: 10, newcomers: 4, flushes: 1, kills: 6, upgrades: 2, policies: 50, away: 5 * time.Second, held: 4 * time.Second, limit: 10 * time.Minute}
)

func isQuick() bool { return os.Getenv(quickVariable) == "1" }

func readSize(t *testing.T) size {
	t.Helper()
	s := full
	if isQuick() {
		s = quick
	}
	if text := os.Getenv(awayVariable); text != "" {
		away, err := time.ParseDuration(text)
		require.NoError(t, err, awayVariable)
		s.away = away
	}
	if text := os.Getenv(faultsVariable); text != "" {
		s.kinds = strings.Split(text, ",")
	}
	return s
}

func (s size) includes(kind string) bool { return len(s.kinds) == 0 || slices.Contains(s.kinds, kind) }

func readSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv(seedVariable)
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, seedVariable)
	return seed
}
