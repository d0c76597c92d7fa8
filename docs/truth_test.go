package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const operations = "docs/operations.md"

// constants returns the values of the string constants in a folder, and those below it,
// whose names match, by name. Tests are left out.
func constants(t *testing.T, folder string, name *regexp.Regexp) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || len(spec.Values) != len(spec.Names) {
				return true
			}
			for i, ident := range spec.Names {
				literal, ok := spec.Values[i].(*ast.BasicLit)
				if ok && literal.Kind == token.STRING && name.MatchString(ident.Name) {
					value, err := strconv.Unquote(literal.Value)
					require.NoError(t, err)
					found[ident.Name] = value
				}
			}
			return true
		})
		return nil
	})
	require.NoError(t, err)
	return found
}

// firstCells returns what the first cells of a document's tables name: words in
// CamelCase.
func firstCells(prose string) map[string]bool {
	words := regexp.MustCompile("[A-Z][A-Za-z]+")
	cells := map[string]bool{}
	for line := range strings.Lines(prose) {
		row, isRow := strings.CutPrefix(line, "| ")
		if !isRow {
			continue
		}
		cell, _, _ := strings.Cut(row, " | ")
		for _, word := range words.FindAllString(cell, -1) {
			cells[word] = true
		}
	}
	return cells
}

// Whatever a condition, a failure or an event may say is explained.
func TestEveryConditionAndReasonHasARow(t *testing.T) {
	prose, _ := split(read(t, operations))
	cells := firstCells(prose)
	for folder, least := range map[string]int{"apis": 45, "controllers": 1, "dataplane": 0} {
		found := constants(t, folder, regexp.MustCompile(`^([a-z]+|[A-Z][A-Za-z]*)?([rR]eason|Condition)[A-Z]`))
		require.GreaterOrEqual(t, len(found), least, folder)
		for name, value := range found {
			require.Truef(t, cells[value], "%s has no table row for %s, the value of %s", operations, value, name)
		}
	}
}

// The manifests that a document shows are those that it applies.
func TestDocumentsShowTheirManifests(t *testing.T) {
	shown := 0
	for _, document := range []string{"README.md", "docs/tutorial.md", "docs/operations.md"} {
		_, blocks := split(read(t, document))
		for _, b := range blocks {
			head, body, _ := strings.Cut(b.text, "\n")
			if file, named := strings.CutPrefix(head, "# config/"); named && b.language == "yaml" {
				shown++
				require.Equal(t, read(t, "config/"+file), body, "%s shows config/%s", document, file)
			}
		}
	}
	require.GreaterOrEqual(t, shown, 5)
}

// A test that a document names as proof is there.
func TestNamedTestsExist(t *testing.T) {
	known := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	for _, folder := range []string{"apis", "charts", "cmd", "controllers", "dataplane", "docs", "hack", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, match := range function.FindAllSubmatch(source, -1) {
				known[string(match[1])] = true
			}
			return err
		})
		require.NoError(t, err)
	}
	named := 0
	for _, document := range documents(t) {
		for _, match := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(read(t, document), -1) {
			named++
			require.Truef(t, known[match[1]], "%s names %s: there is no such test", document, match[1])
		}
	}
	require.Greater(t, named, 40)
}
