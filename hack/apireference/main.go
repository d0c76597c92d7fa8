// Command apireference writes docs/api-reference.md from the CRDs, which
// controller-gen made of the Go types: so that the page can't say what the API
// server doesn't do.
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

const (
	crdFiles = "config/crd/bases/*.yaml"
	page     = "docs/api-reference.md"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "apireference:", err)
		os.Exit(1)
	}
}

func run() error {
	files, err := filepath.Glob(crdFiles)
	if err != nil {
		return fmt.Errorf("listing %s: %w", crdFiles, err)
	}
	var text bytes.Buffer
	text.WriteString(header)
	for _, file := range files {
		crd, err := readCRD(file)
		if err != nil {
			return err
		}
		describe(&text, crd)
	}
	if err := os.WriteFile(page, text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", page, err)
	}
	return nil
}

func readCRD(file string) (*apiextensionsv1.CustomResourceDefinition, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a CRD: %w", err)
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(text, crd); err != nil {
		return nil, fmt.Errorf("parsing %s: %w", file, err)
	}
	return crd, nil
}
