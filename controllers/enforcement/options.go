package enforcement

import (
	"fmt"
	"time"
)

// Reporting says of which policies the operator reports where they are enforced.
type Reporting string

const (
	// ReportAll reports of every policy: of generated ones in the status of their
	// AppIsolation, of hand-written ones in a PolicyEnforcement.
	ReportAll Reporting = "All"
	// ReportGenerated reports of generated policies alone.
	ReportGenerated Reporting = "Generated"
	// ReportNone reports of none. Policies are enforced all the same.
	ReportNone Reporting = "None"
)

// Options of the controllers of this package.
type Options struct {
	// AgentNamespace is where the agents' pods run.
	AgentNamespace string
	Reporting      Reporting

	// writeEvery is set by tests; zero: pace.Every.
	writeEvery time.Duration
}

// ParseReporting reads the value of a flag.
func ParseReporting(text string) (Reporting, error) {
	switch reporting := Reporting(text); reporting {
	case ReportAll, ReportGenerated, ReportNone:
		return reporting, nil
	}
	return "", fmt.Errorf("%q: use %s, %s or %s", text, ReportAll, ReportGenerated, ReportNone)
}
