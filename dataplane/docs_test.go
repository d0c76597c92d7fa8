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

// docs/semantics.md and docs/security.md name the test of each claim: functions in
// code, rows of the kernel tests in quoted italics.
func TestTheDocumentedTestsExist(t *testing.T) {
	tests := testSources(t)
	for file, want := range map[string]struct{ functions, rows int }{"semantics.md": {10, 20}, "security.md": {40, 0}} {
		text, err := os.ReadFile("../docs/" + file)
		require.NoError(t, err)
		functions := regexp.MustCompile("`(Test[A-Za-z0-9]+)`").FindAllSubmatch(text, -1)
		rows := regexp.MustCompile(`\*"([^"\n]+)"\*`).FindAllSubmatch(text, -1)
		require.GreaterOrEqual(t, len(functions), want.functions, file)
		require.GreaterOrEqual(t, len(rows), want.rows, file)
		for _, function := range functions {
			require.True(t, strings.Contains(tests, "func "+string(function[1])+"(t *testing.T)"), "%s: no test %s", file, function[1])
		}
		for _, row := range rows {
			require.True(t, strings.Contains(tests, strconv.Quote(string(row[1]))), "%s: no row %s", file, row[1])
		}
	}
}

// testSources returns the text of all tests of the repository.
func testSources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, root := range []string{"../apis", "../charts", "../cmd", "../controllers", "../test", "."} {
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
