//go:build linux

package build

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// AssetsFolder returns a folder of the cache that holds links to the binaries.
// Its name says what is in it, so that an older one is never changed under a
// test that uses it.
func AssetsFolder(paths map[string]string) (string, error) {
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	names := slices.Sorted(maps.Keys(paths))
	var content strings.Builder
	for _, name := range names {
		fmt.Fprintln(&content, name, paths[name])
	}
	sum := sha256.Sum256([]byte(content.String()))
	dir := filepath.Join(cache, "assets", fmt.Sprintf("%x", sum[:6]))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making the assets folder: %w", err)
	}
	for _, name := range names {
		err := os.Symlink(paths[name], filepath.Join(dir, name))
		if err != nil && !os.IsExist(err) {
			return "", fmt.Errorf("linking %s: %w", name, err)
		}
	}
	return dir, nil
}
