package dataplane

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// networkWithin is how soon a pod that nothing isolates has its network, whatever hangs.
const networkWithin = 5 * time.Second

// holdRestores makes iptables-restore wait until the function that it returns is called.
func (s *scene) holdRestores() (release func()) {
	s.t.Helper()
	dir := s.t.TempDir()
	lock, err := os.Create(filepath.Join(dir, "lock"))
	require.NoError(s.t, err)
	require.NoError(s.t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	for _, family := range []string{"iptables", "ip6tables"} {
		name := fmt.Sprintf("%s-%s-restore", family, map[iptables.Backend]string{iptables.NFT: "nft", iptables.Legacy: "legacy"}[s.enforcer.backend])
		program, err := exec.LookPath(name)
		require.NoError(s.t, err)
		script := fmt.Sprintf("#!/bin/sh\nexec flock %s %s \"$@\"\n", lock.Name(), program)
		require.NoError(s.t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	s.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s.enforcer.runners = nil // finds its programs again
	return func() { require.NoError(s.t, lock.Close()) }
}

// While iptables-restore hangs, a new pod that nothing isolates has its network all the
// same. An isolated pod that gets its address stays closed.
func TestAHangingRestoreDarkensNobody(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			s := walkThroughScene(t, backend)
			s.guardNode()
			s.label("test-np", map[string]string{"role": "db"})
			s.apply(walkThrough)
			s.sync()
			busybox, neighbour := s.hosts["busybox"], s.hosts["neighbour"]
			fresh := s.node.AddPod(t, "10.244.1.40", "fd00:10:244:1::40")

			release := s.holdRestores()
			s.apply("metadata: {name: closed}\nspec: {podSelector: {}, policyTypes: [Ingress]}")
			defer s.runAgent()()
			open := podstart.Sandbox{ID: "1", UID: "u", Namespace: "free", Name: "fresh", Addrs: fresh.Addrs}
			time.Sleep(time.Second) // so that the sync hangs before the pod comes
			s.model.StartSandbox(open)
			started := time.Now()
			for _, addr := range fresh.Addrs {
				require.Eventually(t, func() bool { return busybox.Ping(addr, silentAfter) }, networkWithin, time.Millisecond, "%s", addr)
			}
			t.Logf("network after %s", time.Since(started))
			s.requirePings(true, fresh, busybox)
			s.requirePings(true, busybox, neighbour) // the policy isn't in force: the program hangs

			s.model.StopSandbox(open)
			s.model.StartSandbox(podstart.Sandbox{ID: "2", UID: "v", Namespace: "default", Name: "next", Addrs: fresh.Addrs})
			for _, addr := range fresh.Addrs {
				require.Eventually(t, func() bool { return !busybox.Ping(addr, silentAfter) }, networkWithin, time.Millisecond, "%s", addr)
			}
			s.requirePings(false, fresh, busybox) // closed altogether

			later := s.node.AddPod(t, "10.244.1.41", "fd00:10:244:1::41")
			s.model.StartSandbox(podstart.Sandbox{ID: "3", UID: "w", Namespace: "free", Name: "later", Addrs: later.Addrs})
			for _, addr := range later.Addrs {
				require.Eventually(t, func() bool { return busybox.Ping(addr, silentAfter) }, networkWithin, time.Millisecond, "%s", addr)
			}

			release()
			require.Eventually(t, func() bool { return !busybox.Ping(neighbour.Addrs[0], silentAfter) }, networkWithin, time.Millisecond)
			require.Eventually(t, func() bool { return fresh.Ping(busybox.Addrs[0], silentAfter) }, networkWithin, time.Millisecond, "its policy lets it send")
			s.requirePings(false, busybox, fresh)
			s.requirePings(false, busybox, neighbour)
		})
	}
}

// A pod that the sync has seen doesn't wait either for the programs that the sync runs before
// it writes: what asks which matches there are hangs as well.
func TestAHangingQuestionDarkensNobody(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			s := walkThroughScene(t, backend)
			s.guardNode()
			s.label("test-np", map[string]string{"role": "db"})
			s.apply(walkThrough)
			s.sync()
			busybox, victim := s.hosts["busybox"], s.hosts["test-np"]
			fresh, closed := s.node.AddPod(t, "10.244.1.40", "fd00:10:244:1::40"), s.node.AddPod(t, "10.244.1.41", "fd00:10:244:1::41")

			release := s.holdRestores()
			s.enforcer.distrust() // the runners are new, and so they are asked again
			s.apply("metadata: {name: closed}\nspec: {podSelector: {matchLabels: {role: db}}}")
			s.model.StartSandbox(podstart.Sandbox{ID: "1", UID: "u", Namespace: "free", Name: "fresh", Addrs: fresh.Addrs})
			s.pod("default", "isolated", map[string]string{"role": "db"}, "10.244.1.41", "fd00:10:244:1::41")
			defer s.runAgent()()
			for _, addr := range fresh.Addrs {
				require.Eventually(t, func() bool { return busybox.Ping(addr, silentAfter) }, networkWithin, time.Millisecond, "%s", addr)
			}
			later := s.node.AddPod(t, "10.244.1.42", "fd00:10:244:1::42")
			s.model.StartSandbox(podstart.Sandbox{ID: "2", UID: "v", Namespace: "free", Name: "later", Addrs: later.Addrs})
			for _, addr := range later.Addrs {
				require.Eventually(t, func() bool { return busybox.Ping(addr, silentAfter) }, networkWithin, time.Millisecond, "%s", addr)
			}
			s.requirePings(false, busybox, closed)
			s.requirePings(false, busybox, victim)

			release()
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				s.requirePings(true, busybox, fresh) // who was let in stays in
				s.requirePings(true, busybox, later) // also where the sync planned without it
			}
			s.requirePings(false, busybox, closed)
		})
	}
}

// What passes the guard without any rule being written.
func TestPassing(t *testing.T) {
	pod := func(name, uid string, addrs ...string) *policy.Pod {
		p := &policy.Pod{Namespace: "a", Name: name, UID: types.UID(uid), Subject: true}
		for _, addr := range addrs {
			p.Addrs = append(p.Addrs, netip.MustParseAddr(addr))
		}
		return p
	}
	isolating := func(v *node.View, pods ...*policy.Pod) *node.View {
		for _, p := range pods {
			v.Endpoints = append(v.Endpoints, policy.Endpoint{Pod: p, Isolating: [policy.Directions][]*policy.Policy{{{}}}})
		}
		return v
	}
	first, second := pod("first", "1", "10.0.0.1"), pod("second", "2", "10.0.0.1")
	for name, row := range map[string]struct {
		inside      []string
		before, now *node.View
		enter       []string
		leave       []string
	}{
		"an open pod comes":                     {nil, &node.View{}, &node.View{Local: []*policy.Pod{first}}, []string{"10.0.0.1"}, nil},
		"another family's pod comes":            {nil, &node.View{}, &node.View{Local: []*policy.Pod{pod("p", "1", "fd00::1")}}, nil, nil},
		"an isolated pod comes":                 {nil, &node.View{}, isolating(&node.View{Local: []*policy.Pod{first}}, first), nil, nil},
		"a pod goes":                            {[]string{"10.0.0.1"}, &node.View{Local: []*policy.Pod{first}}, &node.View{}, nil, []string{"10.0.0.1"}},
		"a pod becomes isolated":                {[]string{"10.0.0.1"}, &node.View{Local: []*policy.Pod{first}}, isolating(&node.View{Local: []*policy.Pod{first}}, first), nil, nil},
		"an isolated pod gets another's":        {[]string{"10.0.0.1"}, &node.View{Local: []*policy.Pod{first}}, isolating(&node.View{Local: []*policy.Pod{second}}, second), nil, []string{"10.0.0.1"}},
		"an open pod gets another's":            {[]string{"10.0.0.1"}, &node.View{Local: []*policy.Pod{first}}, &node.View{Local: []*policy.Pod{second}}, nil, nil},
		"a pod of that name is made anew":       {[]string{"10.0.0.1"}, &node.View{Local: []*policy.Pod{first}}, isolating(&node.View{Local: []*policy.Pod{pod("first", "3", "10.0.0.1")}}, first), nil, []string{"10.0.0.1"}},
		"nobody knows who had it":               {[]string{"10.0.0.1"}, nil, isolating(&node.View{Local: []*policy.Pod{first}}, first), nil, nil},
		"nobody knows who had what goes":        {[]string{"10.0.0.1"}, nil, &node.View{}, nil, []string{"10.0.0.1"}},
		"an open pod comes first of all":        {nil, nil, &node.View{Local: []*policy.Pod{first}}, []string{"10.0.0.1"}, nil},
		"two show it, and one of them isolated": {nil, &node.View{}, isolating(&node.View{Local: []*policy.Pod{first, second}}, first), nil, nil},
	} {
		inside := ruleset.Members{}
		for _, addr := range row.inside {
			inside[ruleset.Address(netip.MustParseAddr(addr))] = struct{}{}
		}
		enter, leave := passing(ruleset.IPv4, inside, row.before, row.now)
		var entering, leaving []string
		for _, c := range enter {
			require.Equal(t, compile.LocalSet(ruleset.IPv4), c.Set)
			entering = append(entering, c.Member.Prefix.Addr().String())
		}
		for _, c := range leave {
			leaving = append(leaving, c.Member.Prefix.Addr().String())
		}
		require.Equal(t, row.enter, entering, name)
		require.Equal(t, row.leave, leaving, name)
	}
}

// What a sync planned before the sets of known pods went on is left out of it.
func TestOvertake(t *testing.T) {
	pod := func(name string, addr string) *policy.Pod {
		return &policy.Pod{Namespace: "a", Name: name, Subject: true, Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
	}
	isolated := func(p *policy.Pod) policy.Endpoint {
		return policy.Endpoint{Pod: p, Isolating: [policy.Directions][]*policy.Policy{{{}}}}
	}
	stays, went, closed, came := pod("stays", "10.0.0.1"), pod("went", "10.0.0.2"), pod("closed", "10.0.0.2"), pod("came", "10.0.0.3")
	planned := &node.View{Revision: 1, Local: []*policy.Pod{stays, went}}
	admitted := &node.View{Revision: 2, Local: []*policy.Pod{stays, closed, came}, Endpoints: []policy.Endpoint{isolated(closed)}}
	change := func(addr string) ipset.Change {
		return ipset.Change{Set: compile.LocalSet(ruleset.IPv4), Type: ruleset.HashIP, Member: ruleset.Address(netip.MustParseAddr(addr))}
	}
	changes := func() localChanges {
		return localChanges{
			remove: []ipset.Change{change("10.0.0.3"), change("10.0.0.4")},
			early:  []ipset.Change{change("10.0.0.1"), change("10.0.0.2")},
			late:   []ipset.Change{change("10.0.0.2")},
		}
	}
	overtaken, current := changes(), changes()
	overtaken.overtake(admitted, planned)
	require.Equal(t, []ipset.Change{change("10.0.0.4")}, overtaken.remove, "who came stays in")
	require.Equal(t, []ipset.Change{change("10.0.0.1")}, overtaken.early, "who went lets nobody in")
	require.Empty(t, overtaken.late)
	current.overtake(planned, admitted)
	require.Equal(t, changes(), current, "the plan is the newer one")
	current.overtake(nil, planned)
	require.Equal(t, changes(), current)
}
