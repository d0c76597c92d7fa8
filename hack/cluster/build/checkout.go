//go:build linux

package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moat-dev/moat/hack/cluster/files"
)

// errNoCheckout means that neither the working folder nor the program lies in a
// checkout of this project.
var errNoCheckout = errors.New("no checkout of Moat here: run this inside of one")

// FindCheckout returns the root of the checkout that holds the working folder,
// or else the one that holds this program (as bin/moat-cluster).
func FindCheckout() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the working folder: %w", err)
	}
	candidates := []string{wd}
	if exe, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Dir(exe))
	}
	for _, dir := range candidates {
		if root, ok := checkoutAbove(dir); ok {
			return root, nil
		}
	}
	return "", errNoCheckout
}

func checkoutAbove(dir string) (string, bool) {
	for {
		if files.Exists(filepath.Join(dir, "hack", "cluster", "components", "kubernetes", "go.mod")) {
			return dir, true
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", false
		}
		dir = parent
	}
}

// cacheDir is where built binaries and images live; it survives "down".
func cacheDir() (string, error) {
	if dir := os.Getenv("MOAT_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder: %w; set MOAT_CACHE", err)
	}
	return filepath.Join(home, ".cache", "moat"), nil
}
