//go:build linux

package files

import (
	"fmt"
	"os"
	"path/filepath"
)

// Exists says whether there is something at the path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// WriteFile replaces a file as a whole, so that no reader sees half of it.
func WriteFile(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(content), 0o600); err != nil {
		return fmt.Errorf("writing a file: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("writing a file: %w", err)
	}
	return nil
}
