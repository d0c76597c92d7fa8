package chaos

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moat-dev/moat/test/cluster"
)

// disturbance counts what the machine lost on its own: captures that overflowed,
// queues of the processors, tables of connections. While it grows, a probe that
// didn't arrive says nothing about Moat.
type disturbance map[string]uint64

// since returns what has grown, as text.
func (d disturbance) since(before disturbance) string {
	var grown []string
	for _, name := range slices.Sorted(maps.Keys(d)) {
		if by := d[name] - before[name]; d[name] > before[name] {
			grown = append(grown, fmt.Sprintf("%s %d", name, by))
		}
	}
	return strings.Join(grown, ", ")
}

// conntrackLosses are the columns of /proc/net/stat/nf_conntrack that count packets
// that the kernel dropped.
var conntrackLosses = []string{"drop", "early_drop", "insert_failed"}

func (d disturbance) addColumns(name, path string, columns []string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	head := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		for _, column := range columns {
			if at := slices.Index(head, column); at >= 0 && at < len(fields) {
				value, err := strconv.ParseUint(fields[at], 16, 64)
				if err != nil {
					return fmt.Errorf("reading %s: %w", path, err)
				}
				d[name+" "+column] += value
			}
		}
	}
	return nil
}

// addSoftnet adds what the processors' queues had no room for.
func (d disturbance) addSoftnet() error {
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		dropped, err := strconv.ParseUint(fields[1], 16, 64)
		if err != nil {
			return fmt.Errorf("reading softnet_stat: %w", err)
		}
		d["queues of the processors"] += dropped
	}
	return nil
}

// addNode adds what a node's table of connections lost.
func (d disturbance) addNode(n *cluster.Node) error {
	// The file is that of the thread's network, and not of the process's.
	return n.Do(func() error {
		return d.addColumns("connections of "+n.Name, "/proc/thread-self/net/stat/nf_conntrack", conntrackLosses)
	})
}
