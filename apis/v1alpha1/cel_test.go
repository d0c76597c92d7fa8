package v1alpha1_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var celMessage = regexp.MustCompile(`XValidation:.*message="([^"]*)"`)

// celMessages returns the messages of all CEL rules of the types.
func celMessages(t *testing.T) []string {
	t.Helper()
	var messages []string
	for name, text := range goFiles(t) {
		if !strings.HasSuffix(name, "_test.go") {
			for _, match := range celMessage.FindAllStringSubmatch(text, -1) {
				messages = append(messages, match[1])
			}
		}
	}
	return messages
}

func testSources(t *testing.T) string {
	t.Helper()
	var sources strings.Builder
	for name, text := range goFiles(t) {
		if strings.HasSuffix(name, "_test.go") {
			sources.WriteString(text)
		}
	}
	return sources.String()
}

func goFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	require.NoError(t, err)
	texts := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		texts[name] = string(text)
	}
	return texts
}
