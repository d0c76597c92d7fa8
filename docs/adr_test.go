package docs_test

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each decision record has its number, a date, the five headings with text below each, and
// a line in the index with the same date and title.
func TestDecisionRecordsAreWhole(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "docs/adr/[0-9]*.md"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 62)
	record := regexp.MustCompile(`\A# (\d{4}): (.+)

## Status

Accepted (\d{4}-\d{2}-\d{2})\.[^#]+
## Context

[^#\s](?s:.+)
## Decision

[^#\s](?s:.+)
## Alternatives considered

[^#\s](?s:.+)
## Consequences

[^#\s](?s:.+)\z`)
	index := read(t, "docs/adr/README.md")
	for i, file := range files {
		name := path.Base(filepath.ToSlash(file))
		require.Equal(t, fmt.Sprintf("%04d-", i+1), name[:5], "records are numbered without a gap")
		parts := record.FindStringSubmatch(read(t, "docs/adr/"+name))
		require.NotNilf(t, parts, "%s lacks a heading, a date or text: see docs/adr/README.md", name)
		require.Equal(t, name[:4], parts[1], name)
		require.Contains(t, index, fmt.Sprintf("| [%s](%s) | %s | %s |\n", parts[1], name, parts[3], parts[2]))
	}
	require.Len(t, regexp.MustCompile(`(?m)^\| \[\d{4}\]`).FindAllString(index, -1), len(files))
}
