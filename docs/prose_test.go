package docs_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

const width = 100

// hard is what a tired reader stumbles over. The glossary and the style of the pages have
// plainer words: a program's name, never, again, failed, scan.
var hard = []*regexp.Regexp{
	regexp.MustCompile(`(?i)\bin vain\b`),
	regexp.MustCompile(`(?i)\bfor ever\b`),
	regexp.MustCompile(`(?i)\banew\b`),
	regexp.MustCompile(`(?i)\bonce more\b`),
	regexp.MustCompile(`(?i)\bmeanwhile\b`),
	regexp.MustCompile(`(?i)\b(some|no)body\b`),
	regexp.MustCompile(`(?i)\bwho(ever|soever)\b`),
	regexp.MustCompile(`(?i)\bwho is \S+( \S+){0,4} may\b`),
	regexp.MustCompile(`(?i)(^|[.:;,] )who (may|is|has|wants|can|writes)\b[^?]*$`),
	regexp.MustCompile(`(?i)\b(the|two|such|these|those|later|of|after) looks\b`),
	regexp.MustCompile(`(?i)\b(a|the|one|each|every|that|first|next|later) look([^-\w]|$)`),
	regexp.MustCompile(`(?i)\bwhat is not\b.*\bis nothing\b`),
}

// generated are the documents that a program writes, whole.
var generated = map[string]bool{"docs/api-reference.md": true}

// written returns the lines of a document that a person writes and reads as text, each with
// its number. Blocks of code, comments and generated tables are left out.
func written(document string) map[int]string {
	lines := map[int]string{}
	fenced, indented, figures := false, false, false
	before := ""
	for i, line := range strings.Split(document, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if strings.HasPrefix(line, "<!-- ") {
			figures = strings.HasSuffix(line, " begin -->")
			continue
		}
		// An indented line after an empty one begins code; in a list it is code all the more.
		indented = strings.HasPrefix(line, "    ") && (indented || before == "")
		before = line
		if !fenced && !figures && !indented && line != "" {
			lines[i+1] = line
		}
	}
	return lines
}

// title is the name of a row of a test.
var title = regexp.MustCompile(`\*"[^"]*"\*`)

// uncoded returns a line without inline code, titles of tests and where its links lead.
func uncoded(line string) string {
	line = code.ReplaceAllString(line, "`x`")
	line = title.ReplaceAllString(line, "x")
	return regexp.MustCompile(`\]\([^)]*\)`).ReplaceAllString(line, "](x)")
}

// breaks reports whether a line that is too long could be broken: it has a space, outside of
// code and titles of tests, in what fits.
func breaks(line string) bool {
	solid := regexp.MustCompile("`[^`]*`|\\*\"[^\"]*\"\\*").ReplaceAllStringFunc(line, func(s string) string {
		return strings.ReplaceAll(s, " ", "_")
	})
	text := strings.TrimLeft(solid, " ")
	text = regexp.MustCompile(`^([-*]|\d+\.) `).ReplaceAllString(text, "")
	return strings.Contains(text, " ")
}

func isTableOrTarget(line string) bool {
	return strings.HasPrefix(line, "|") || regexp.MustCompile(`^\[[^\]]+\]: `).MatchString(line)
}

// Lines wrap, so that a terminal and a diff show them whole.
func TestLinesWrap(t *testing.T) {
	checked := 0
	for _, document := range documents(t) {
		if generated[document] {
			continue
		}
		for number, line := range written(read(t, document)) {
			checked++
			if utf8.RuneCountInString(line) <= width || isTableOrTarget(line) {
				continue
			}
			require.Falsef(t, breaks(line), "%s:%d has more than %d columns", document, number, width)
		}
	}
	require.Greater(t, checked, 1000)
}

// A cell holds one sentence; what takes more stands below the table.
func TestACellHoldsOneSentence(t *testing.T) {
	next := regexp.MustCompile("[.!?]\\)? +[A-Z`\\[*]")
	for _, document := range documents(t) {
		if generated[document] {
			continue
		}
		for number, line := range written(read(t, document)) {
			if strings.HasPrefix(line, "|") {
				require.Falsef(t, next.MatchString(uncoded(line)), "%s:%d has a cell with two sentences: %s", document, number, line)
			}
		}
	}
}

func TestProseIsPlain(t *testing.T) {
	for _, document := range documents(t) {
		if generated[document] {
			continue
		}
		for number, line := range written(read(t, document)) {
			for _, phrase := range hard {
				require.Falsef(t, phrase.MatchString(uncoded(line)), "%s:%d: say it in plain words: %s (%s)", document, number, line, phrase)
			}
		}
	}
}

// The checks above can fail.
func TestHardProseIsFound(t *testing.T) {
	for _, line := range []string{
		"It waits in vain.", "the agent looks once more", "Nobody asks.", "Whoever may write it", "after two looks",
		"Who is admin of all namespaces may write it.", "What is not read is nothing that counts.",
	} {
		found := false
		for _, phrase := range hard {
			found = found || phrase.MatchString(uncoded(line))
		}
		require.True(t, found, line)
	}
	for _, line := range []string{"The table looks like this", "`nobody` and [x](somebody.md)", "a person who may write it", "Who may do what?"} {
		for _, phrase := range hard {
			require.False(t, phrase.MatchString(uncoded(line)), "%s: %s", line, phrase)
		}
	}
	document := "prose\n\n    code\n    more code\n\n```\nfence\n```\n<!-- bench: begin -->\n| x |\n<!-- bench: end -->\n- item\n    goes on\n"
	require.Equal(t, map[int]string{1: "prose", 12: "- item", 13: "    goes on"}, written(document))
	long := strings.Repeat("x", width)
	require.True(t, breaks("- "+long+" x"))
	require.False(t, breaks("- `a "+long+"`,"))
}
