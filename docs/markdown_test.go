// Package docs_test checks what the documents say against the code.
package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

const root = ".."

// documents returns the path of every document, from the root.
func documents(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", "CONTRIBUTING.md", "charts/moat/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md", "config/samples/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			name, err := filepath.Rel(root, file)
			require.NoError(t, err)
			all = append(all, name)
		}
	}
	return all
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(text)
}

// block is a fenced block: the word behind its fence, and its lines.
type block struct {
	language, text string
}

// split parts a document into its prose, with empty lines where blocks were, and its
// fenced blocks.
func split(markdown string) (prose string, blocks []block) {
	var lines []string
	inside := false
	for line := range strings.Lines(markdown) {
		language, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !inside:
			blocks = append(blocks, block{language: strings.TrimSpace(language)})
			inside = true
		case isFence:
			inside = false
		case inside:
			blocks[len(blocks)-1].text += line
		}
		if isFence || inside || strings.HasPrefix(line, "    ") {
			line = "\n"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, ""), blocks
}

// anchors returns the names that GitHub gives a document's headings.
func anchors(prose string) map[string]bool {
	known := map[string]bool{}
	for line := range strings.Lines(prose) {
		level := len(line) - len(strings.TrimLeft(line, "#"))
		if level == 0 || !strings.HasPrefix(line[level:], " ") {
			continue
		}
		name := anchor(strings.TrimSpace(line[level:]))
		unique := name
		for i := 1; known[unique]; i++ {
			unique = name + "-" + strconv.Itoa(i)
		}
		known[unique] = true
	}
	return known
}

func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		}
		return -1
	}, title)
}

var (
	code = regexp.MustCompile("`[^`\n]*`")
	// Inline links, and the definitions that links refer to.
	links = regexp.MustCompile(`\]\(([^()\s]+)\)|(?m:^\[[^\]]+\]: (\S+))`)
)

// targets returns what a document's links lead to.
func targets(prose string) []string {
	var all []string
	for _, match := range links.FindAllStringSubmatch(code.ReplaceAllString(prose, ""), -1) {
		all = append(all, match[1]+match[2])
	}
	return all
}

func TestLinksLeadSomewhere(t *testing.T) {
	checked := 0
	for _, document := range documents(t) {
		prose, _ := split(read(t, document))
		for _, target := range targets(prose) {
			if strings.Contains(target, "://") {
				continue
			}
			checked++
			path, fragment, _ := strings.Cut(target, "#")
			file := filepath.Join(filepath.Dir(document), path)
			if path == "" {
				file = document
			}
			require.FileExistsf(t, existing(file), "%s links to %s", document, target)
			if fragment == "" {
				continue
			}
			there, _ := split(read(t, file))
			require.Truef(t, anchors(there)[fragment], "%s links to %s: there is no such heading", document, target)
		}
	}
	require.Greater(t, checked, 50)
}

// existing returns a file that is there exactly if the path is: a folder is as good as a
// file.
func existing(path string) string {
	path = filepath.Join(root, path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return filepath.Join(root, "README.md")
	}
	return path
}

func TestAnchorsAreThoseOfGitHub(t *testing.T) {
	known := anchors("# A title\n## IsolationConfig (cluster-scoped)\n### Why `this`, and not that?\n## A title\n#no heading\n")
	require.Equal(t, map[string]bool{
		"a-title": true, "isolationconfig-cluster-scoped": true, "why-this-and-not-that": true, "a-title-1": true,
	}, known)
	require.Equal(t, []string{"a.md#b", "https://x"}, targets("See [a](a.md#b), `[no](c.md)` and [x].\n\n[x]: https://x\n"))
}

// What code and manifests name of the documentation is there: comments, and what the
// alerts lead to.
func TestDocumentsThatAreNamedExist(t *testing.T) {
	named := regexp.MustCompile(`docs/((?:[a-z]+/)*[a-zA-Z0-9-]+\.md)(#[a-z0-9_-]+)?`)
	found := 0
	for _, folder := range []string{"apis", "charts", "cmd", "config", "controllers", "dataplane", "hack", "internal", "test"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry os.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			switch filepath.Ext(path) {
			case ".go", ".yaml", ".sh", ".tpl", ".txt", ".json":
			default:
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, match := range named.FindAllStringSubmatch(string(text), -1) {
				found++
				require.FileExistsf(t, filepath.Join(root, "docs", match[1]), "named in %s", path)
				if fragment := strings.TrimPrefix(match[2], "#"); fragment != "" {
					prose, _ := split(read(t, "docs/"+match[1]))
					require.Truef(t, anchors(prose)[fragment], "%s names %s: there is no such heading", path, match[0])
				}
			}
			return nil
		})
		require.NoError(t, err)
	}
	require.Greater(t, found, 5)
}
