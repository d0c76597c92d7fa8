package roads

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// pinged makes a stream whose pings were sent once a second from noon on; a letter of
// the text is "+" where one was answered.
func pinged(closedOn, text string) *stream {
	s := &stream{from: "a", to: "b", closedOn: closedOn}
	for i, letter := range text {
		s.pings = append(s.pings, ping{noon.Add(time.Duration(i) * time.Second), letter == '+'})
	}
	return s
}

func TestLeakedAndLostPings(t *testing.T) {
	at := span{begun: noon.Add(time.Second), left: noon.Add(4 * time.Second), ended: noon.Add(7 * time.Second)}
	for _, c := range []struct {
		name         string
		o            outcome
		s            *stream
		leaked, lost int
	}{
		{"closed, and stays so", stays, pinged("node-1", "+------+"), 0, 0},
		{"opens though rules stay", stays, pinged("node-1", "----+---"), 1, 0},
		{"opens after the removal began", leaves, pinged("node-1", "-----+++"), 0, 0},
		{"opens before the removal began", leaves, pinged("node-1", "--++++++"), 2, 0},
		{"opens where Moat left the node", thins, pinged(chosenNode, "-----+++"), 0, 0},
		{"opens where it didn't", thins, pinged("node-1", "-----+++"), 2, 0},
		{"closes when rules come", arrives, pinged("node-1", "+++++---"), 0, 0},
		{"open, and stays so", leaves, pinged("", "-++++++-"), 0, 0},
		{"open, and is lost before", stays, pinged("", "+-++++++"), 0, 1},
		{"open, and is lost after the removal began", leaves, pinged("", "+++++--+"), 0, 2},
	} {
		leaked, lost, faults := verdicts([]*stream{c.s}, c.o, at)
		require.Equal(t, c.leaked, leaked, c.name)
		require.Equal(t, c.lost, lost, c.name)
		require.Equal(t, leaked+lost > 0, len(faults) == 1, c.name)
	}
}

// What settled looks at is the second that ended when answers to its pings were due.
func TestSettledStreams(t *testing.T) {
	now := noon.Add(3*time.Second + answersWithin)
	for _, c := range []struct {
		name  string
		s     *stream
		stand places
		so    bool
	}{
		{"closed", pinged("node-1", "++-+"), everywhere, true},
		{"closed, but open", pinged("node-1", "--+-"), everywhere, false},
		{"open since rules went", pinged("node-1", "--+-"), nowhere, true},
		{"closed though rules went", pinged("node-1", "++-+"), nowhere, false},
		{"closed there, gone here", pinged(chosenNode, "--+-"), allBut(chosenNode), true},
		{"open", pinged("", "--+-"), everywhere, true},
		{"open, but silent", pinged("", "++-+"), everywhere, false},
		{"no pings", pinged("", ""), everywhere, false},
	} {
		require.Equal(t, c.so, settled(c.s, c.stand, now) == "", c.name)
	}
}

// The checksum of ICMP makes the sum of all words 0xffff (RFC 1071).
func TestEchoRequestHasItsChecksum(t *testing.T) {
	for number := range uint16(300) {
		var sum uint32
		message := echoRequest(number)
		for i := 0; i < len(message); i += 2 {
			sum += uint32(message[i])<<8 | uint32(message[i+1])
		}
		require.EqualValues(t, 0xffff, sum&0xffff+sum>>16)
	}
}

func TestChosenRoads(t *testing.T) {
	require.Len(t, choose(roads, false, []string{""}), len(roads))
	quick := choose(roads, true, []string{""})
	require.NotEmpty(t, quick)
	require.Less(t, len(quick), len(roads))
	require.Len(t, choose(roads, false, []string{"drain", "evicted"}), 2)
}

// The document's table has the same rows, in the same order.
func TestDocumentHasTheRoads(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n### Every road\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n#")
	var documented []string
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| ") {
			documented = append(documented, strings.TrimSpace(line))
		}
	}
	wanted := []string{"| road | Moat's rules | isolated pod | open pod | new pod |", "| --- | --- | --- | --- | --- |"}
	for _, r := range roads {
		o := r.outcome
		wanted = append(wanted, "| "+strings.Join([]string{r.name, o.rules, o.isolated, o.open, o.newPod}, " | ")+" |")
	}
	require.Equal(t, wanted, documented)
	require.Contains(t, section, "60 s")
	require.Equal(t, time.Minute, settlesWithin)
}
