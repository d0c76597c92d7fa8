// Package junit writes the part of the JUnit format that CI systems read.
package junit

import (
	"encoding/xml"
	"fmt"
	"os"
	"time"
)

type suites struct {
	XMLName xml.Name `xml:"testsuites"`
	Suites  []Suite  `xml:"testsuite"`
}

// Suite is a number of cases. Its zero value is ready.
type Suite struct {
	Name     string `xml:"name,attr"`
	Tests    int    `xml:"tests,attr"`
	Failures int    `xml:"failures,attr"`
	Time     string `xml:"time,attr"` // see Seconds
	Cases    []Case `xml:"testcase"`
}

// Case is one case of a suite.
type Case struct {
	Suite   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *Failure `xml:"failure"`
}

// Failure is why a case failed.
type Failure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// Add appends a case; it failed if there is a message.
func (s *Suite) Add(name string, took time.Duration, message, text string) {
	c := Case{Suite: s.Name, Name: name, Time: Seconds(took)}
	if message != "" {
		c.Failure = &Failure{Message: message, Text: text}
		s.Failures++
	}
	s.Tests++
	s.Cases = append(s.Cases, c)
}

// Seconds is how the format writes a duration.
func Seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// Write writes a file of suites.
func Write(path string, all []Suite) error {
	text, err := xml.MarshalIndent(suites{Suites: all}, "", "  ")
	if err != nil {
		return fmt.Errorf("rendering the JUnit file: %w", err)
	}
	return os.WriteFile(path, append([]byte(xml.Header), text...), 0o644)
}
