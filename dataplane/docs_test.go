package dataplane

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// docs/semantics.md names the test of each claim: functions in code, rows of the
// kernel tests in quoted italics.
func TestTheDocumentedTestsExist(t *testing.T) {
	text, err := os.ReadFile("../docs/semantics.md")
	require.NoError(t, err)
	tests := testSources(t)
	functions := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
	rows := regexp.MustCompile(`\*"([^"\n]+)"\*`).FindAllSubmatch(text, -1)
	require.Greater(t, len(functions), 10)
	require.Greater(t, len(rows), 20)
	for _, function := range functions {
		require.True(t, strings.Contains(tests, "func "+string(function[1])+"(t *testing.T)"), "no test %s", function[1])
	}
	for _, row := range rows {
		require.True(t, strings.Contains(tests, strconv.Quote(string(row[1]))), "no row %s", row[1])
	}
}

// testSources returns the text of all tests of the dataplane and of the module of
// tests.
func testSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, root := range []string{".", "../test"} {
		require.NoError(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			all.Write(source)
			return err
		}))
	}
	return all.String()
}
