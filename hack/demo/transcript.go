package main

import (
	"regexp"
	"slices"
	"strings"
)

// entry is a command of a document and what it has to print, line by line.
type entry struct {
	line    int // in the document, from 1
	command string
	want    []string
}

// Blocks of documents that are run begin with consoleFence, and their commands with
// prompt.
const (
	fence        = "```"
	consoleFence = fence + "console"
	prompt       = "$ "
)

// transcript returns the commands of all console blocks of a document in Markdown, in
// their order.
func transcript(markdown string) []entry {
	var entries []entry
	inside := false
	for i, line := range strings.Split(markdown, "\n") {
		switch {
		case line == consoleFence:
			inside = true
		case strings.HasPrefix(line, fence):
			inside = false
		case inside && strings.HasPrefix(line, prompt):
			entries = append(entries, entry{line: i + 1, command: strings.TrimPrefix(line, prompt)})
		case inside && len(entries) > 0:
			last := &entries[len(entries)-1]
			last.want = append(last.want, line)
		}
	}
	return entries
}

// changing are the words of kubectl that change something: such a command isn't run
// twice.
var changing = regexp.MustCompile(`^kubectl .*\b(apply|create|delete|label|patch)\b`)

// awaitsEnforcement says that a command returns when the rules are in the kernel. What
// follows has to be right at once.
func (e entry) awaitsEnforcement() bool { return strings.Contains(e.command, "condition=Enforced") }

func (e entry) changes() bool { return changing.MatchString(e.command) }

// agrees compares what a command printed with the document, word by word, without regard
// to space between them and to ages.
func (e entry) agrees(printed string) bool {
	return slices.Equal(loosely(strings.Join(e.want, "\n")), loosely(printed))
}

var age = regexp.MustCompile(`^([0-9]+[smhd])+$`)

// loosely returns the lines of a text that have words, with one space between these and
// "AGE" for any age.
func loosely(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		for i, word := range words {
			if age.MatchString(word) {
				words[i] = "AGE"
			}
		}
		if len(words) > 0 {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	return lines
}
