package charts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The values that documents set are values of the chart: each `helm install` and `helm
// upgrade` in them renders.
func TestDocumentedInstallationsRender(t *testing.T) {
	var documents []string
	for _, pattern := range []string{"../docs/*.md", "../docs/*/*.md"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		documents = append(documents, files...)
	}
	placeholders := strings.NewReplacer("REGISTRY", "registry.example", "TAG", "v1", "\\\n", " ")
	command := regexp.MustCompile(`(?m)^ *(?:\$ )?helm (?:install|upgrade) .*$`)
	found := 0
	for _, document := range append(documents, "../README.md", "moat/README.md") {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, line := range command.FindAllString(placeholders.Replace(string(text)), -1) {
			found++
			require.Contains(t, line, " moat charts/moat ", document)
			require.Contains(t, line, " --namespace "+namespace, document)
			_, err := template(t, settings(line)...)
			require.NoError(t, err, "%s: %s", document, line)
		}
	}
	require.GreaterOrEqual(t, found, 3)
}

// settings returns the flags of a command line that set values.
func settings(line string) (flags []string) {
	words := strings.Fields(line)
	for i, word := range words {
		if strings.HasPrefix(word, "--set") && i+1 < len(words) {
			flags = append(flags, word, strings.Trim(words[i+1], "'"))
		}
	}
	return flags
}
