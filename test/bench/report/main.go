// Report prints a run of the benchmark as a table, or puts it into the
// documentation.
//
//	go run ./bench/report -json FILE
//	go run ./bench/report -json FILE -document docs/performance/results.md -picture docs/performance/growth.svg
//	go run ./bench/report -status FILE -document docs/performance/results.md
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/moat-dev/moat/test/bench/results"
)

func main() {
	path := flag.String("json", "", "`file` that the benchmark wrote")
	status := flag.String("status", "", "`file` that the benchmark of status wrote")
	document := flag.String("document", "", "`file` to put the table into")
	picture := flag.String("picture", "", "`file` to write the growth curve to, an SVG")
	flag.Parse()
	var err error
	if *status != "" {
		err = runStatus(*status, *document)
	} else {
		err = run(*path, *document, *picture)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(path, document, picture string) error {
	report, err := results.Read(path)
	if err != nil {
		return err
	}
	if picture != "" && report.Grows() {
		if err := os.WriteFile(picture, []byte(report.Picture()), 0o644); err != nil {
			return fmt.Errorf("writing the picture: %w", err)
		}
	}
	if document == "" {
		return report.Print(os.Stdout)
	}
	return fill(document, report)
}

func runStatus(path, document string) error {
	report, err := results.ReadStatus(path)
	if err != nil {
		return err
	}
	if document == "" {
		return report.Print(os.Stdout)
	}
	return fill(document, report)
}

// fill puts a report into a document.
func fill(document string, report interface{ Insert(string) (string, error) }) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return fmt.Errorf("reading the document: %w", err)
	}
	filled, err := report.Insert(string(text))
	if err != nil {
		return err
	}
	if err := os.WriteFile(document, []byte(filled), 0o644); err != nil {
		return fmt.Errorf("writing the document: %w", err)
	}
	return nil
}
