package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestJudgePing(t *testing.T) {
	for output, want := range map[string]outcome{
		"2 packets transmitted, 2 packets received, 0% packet loss":                 answered,
		"2 packets transmitted, 2 received, 0% packet loss, time 205ms":             answered,
		"2 packets transmitted, 0 packets received, 100% packet loss":               blocked,
		"2 packets transmitted, 1 packets received, 50% packet loss":                "",
		"Error from server (NotFound): pods \"busybox\" not found":                  "",
		"ping: sendto: Network is unreachable":                                      "",
		"command terminated with exit code 143":                                     "",
		"10 packets transmitted, 9 received, 10% packet loss":                       "",
		"2 packets transmitted, 0 received, +2 errors, 100% packet loss, time 10ms": "",
	} {
		seen, known := judgePing(output)
		require.Equal(t, want, seen, output)
		require.Equal(t, want != "", known, output)
	}
}

func TestJudgeGet(t *testing.T) {
	for output, want := range map[string]outcome{
		"Welcome to nginx!\n":                                                 answered,
		"Hello from outside of the cluster\n":                                 answered,
		"command terminated with exit code 143":                               blocked,
		"wget: can't connect to remote host (10.244.1.4): Connection refused": "",
		"command terminated with exit code 139":                               "",
		"":                                                                    "",
	} {
		seen, known := judgeGet(output)
		require.Equal(t, want, seen, output)
		require.Equal(t, want != "", known, output)
	}
}

func TestJudgePings(t *testing.T) {
	for output, want := range map[string]string{
		"199 packets transmitted, 199 packets received, 0% packet loss": allAnswered,
		"200 packets transmitted, 199 packets received, 0% packet loss": allAnswered,
		"200 packets transmitted, 198 packets received, 1% packet loss": "198 of 200 answered",
		"200 packets transmitted, 0 packets received, 100% packet loss": noneAnswered,
		"200 packets transmitted, 1 packets received, 99% packet loss":  "1 of 200 answered",
		"200 packets transmitted, 200 received, 0% packet loss":         allAnswered,
		"39 packets transmitted, 0 packets received, 100% packet loss":  "only 39 pings",
		"command terminated": "ping printed no numbers: command terminated",
	} {
		require.Equal(t, want, judgePings(output), output)
	}
}

func TestOtherSystemsAreSentToLinux(t *testing.T) {
	require.NoError(t, requireLinux("linux"))
	require.EqualError(t, requireLinux("darwin"),
		"the demo's nodes are Linux network namespaces, and darwin has none: use a Linux machine or VM")
}

func TestRowDiffers(t *testing.T) {
	require.False(t, row{what: "ping", want: "blocked", seen: "blocked"}.differs())
	require.True(t, row{what: "ping", want: "blocked", seen: "answers"}.differs())
	require.True(t, row{what: "ping", want: "blocked", seen: ""}.differs())
	require.False(t, row{step: "1. A title"}.differs())

	require.False(t, row{what: "in force", want: inTime, seen: took(1900 * time.Millisecond)}.differs())
	require.True(t, row{what: "in force", want: inTime, seen: took(2100 * time.Millisecond)}.differs())
}

func TestFirstSight(t *testing.T) {
	changed := time.Now()
	sightings := make(chan sighting, 4)
	sightings <- sighting{answered, changed.Add(-time.Second)}
	sightings <- sighting{answered, changed.Add(100 * time.Millisecond)}
	sightings <- sighting{blocked, changed.Add(300 * time.Millisecond)}
	require.Equal(t, "within 2 s (0.3 s)", firstSight(sightings, blocked, changed))

	close(sightings)
	require.Equal(t, "the watcher ended early", firstSight(sightings, blocked, changed))
}

// The checksum of ICMP makes the sum of all words 0xffff (RFC 1071).
func TestEchoRequestHasItsChecksum(t *testing.T) {
	var sum uint32
	message := echoRequest()
	for i := 0; i < len(message); i += 2 {
		sum += uint32(message[i])<<8 | uint32(message[i+1])
	}
	require.EqualValues(t, 0xffff, sum&0xffff+sum>>16)
}

func TestTranscript(t *testing.T) {
	entries := transcript("# Title\n\n```yaml\n$ not: this\n```\n```console\n$ kubectl get x\nNAME  AGE\n\nx     3s\n$ true\n```\n$ nor this\n")
	require.Equal(t, []entry{
		{line: 7, command: "kubectl get x", want: []string{"NAME  AGE", "", "x     3s"}},
		{line: 11, command: "true"},
	}, entries)
	require.True(t, entries[0].agrees("NAME   AGE\nx      1m12s\n"))
	for _, other := range []string{"", "NAME AGE\n", "NAME AGE\ny 3s\n", "NAME AGE\nx 3s\nz 3s\n", "NAME AGE\nx 3\n"} {
		require.False(t, entries[0].agrees(other), other)
	}
	require.True(t, entries[1].agrees(""))
	require.False(t, entries[1].agrees("command not found\n"))
}

func TestWhatMayBeRunTwice(t *testing.T) {
	for command, changes := range map[string]bool{
		"kubectl apply -f apps.yaml":                               true,
		"kubectl -n shop patch appisolation api -p '{}'":           true,
		"kubectl delete namespace shop":                            true,
		"kubectl -n shop get appisolation":                         false,
		"kubectl -n shop wait --for=condition=Enforced policy/old": false,
		"config/samples/tutorial/reach.sh":                         false,
	} {
		require.Equal(t, changes, entry{command: command}.changes(), command)
	}
}
