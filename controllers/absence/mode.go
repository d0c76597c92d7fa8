package absence

import "fmt"

// Mode says what is done where a node has no agent at work.
type Mode string

// The values of Mode. The zero value is Ignore.
const (
	// Ignore does nothing, and needs no rights. It is what an operator does that a chart
	// of before 0.3.0 starts: with that chart's rights it would wait for its watches and
	// never be ready.
	Ignore Mode = "Ignore"

	// Report writes status.agent of NodeEnforcements and the metrics. Taints that there
	// are go.
	Report Mode = "Report"

	// Taint does what Report does, and taints nodes where new pods would have no network.
	Taint Mode = "Taint"
)

// ParseMode reads the value of a flag. The error says which values there are.
func ParseMode(value string) (Mode, error) {
	switch mode := Mode(value); mode {
	case Ignore, Report, Taint:
		return mode, nil
	}
	return "", fmt.Errorf("%q: use %s, %s or %s", value, Ignore, Report, Taint)
}
