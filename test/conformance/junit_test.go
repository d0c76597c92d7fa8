package conformance

import (
	"encoding/xml"
	"fmt"
	"os"
	"time"
)

// The part of the JUnit format that CI systems read.
type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Suite   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// add appends a case; it failed if there is a message.
func (s *junitSuite) add(name string, took time.Duration, message, text string) {
	c := junitCase{Suite: s.Name, Name: name, Time: seconds(took)}
	if message != "" {
		c.Failure = &junitFailure{Message: message, Text: text}
		s.Failures++
	}
	s.Tests++
	s.Cases = append(s.Cases, c)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

func writeJUnit(path string, suites []junitSuite) error {
	text, err := xml.MarshalIndent(junitSuites{Suites: suites}, "", "  ")
	if err != nil {
		return fmt.Errorf("rendering the JUnit file: %w", err)
	}
	return os.WriteFile(path, append([]byte(xml.Header), text...), 0o644)
}
