package chaos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Kinds of faults, as FAULTS names them.
const (
	kindStart    = "start"
	kindKill     = "kill"
	kindUpgrade  = "upgrade"
	kindAPI      = "api"
	kindIPTables = "iptables"
	kindDamage   = "damage"
	kindPolicies = "policies"
	kindFrozen   = "frozen"
	kindFlush    = "flush"
	kindForeign  = "foreign"
)

// kills kills agents at random moments: while they start, while they wait for the
// API server, and every third time while they restore rules. Every fifth time a pod that
// nothing isolates starts while there is no agent.
func (s *suite) kills() {
	for i := range s.size.kills {
		name, whileRestoring := fmt.Sprintf("SIGKILL %d of %d", i+1, s.size.kills), i%3 == 2
		if whileRestoring {
			name += ", in the middle of a restore"
		}
		s.make(fault{kind: kindKill, name: name, do: func(a *attempt) {
			node, see := s.random.IntN(len(s.Nodes)), func() {}
			if whileRestoring {
				s.awaitRestore(node)
			} else {
				s.sleep(s.upTo(700 * time.Millisecond))
			}
			s.agents.kill(s.t, node)
			s.sleep(s.upTo(300 * time.Millisecond))
			if i%5 == 0 {
				see = s.welcome(a, node)
			}
			s.agents.start(s.t, node)
			see()
		}})
	}
	s.make(fault{kind: kindKill, name: "SIGKILL of all agents, and back", do: func(a *attempt) {
		for i := range s.Nodes {
			s.agents.kill(s.t, i)
		}
		see := s.welcomeEverywhere(a)
		s.sleep(time.Second)
		for i := range s.Nodes {
			s.agents.start(s.t, i)
		}
		see()
		s.awaitReady()
	}})
}

// upgrades stop an agent as a kubelet does and start another build.
func (s *suite) upgrades() {
	for i := range s.size.upgrades {
		s.make(fault{kind: kindUpgrade, name: fmt.Sprintf("upgrade %d of %d", i+1, s.size.upgrades), do: func(a *attempt) {
			node, see := i%len(s.Nodes), func() {}
			s.sleep(s.upTo(300 * time.Millisecond))
			s.agents.upgrade(s.t, node, func() { see = s.welcome(a, node) })
			see()
			s.awaitReady()
		}})
	}
}

// control plane faults.
func (s *suite) apiFaults() {
	s.make(fault{kind: kindAPI, name: fmt.Sprintf("the API server is away for %s", s.size.away), do: func(a *attempt) {
		restart := s.Crash(s.t, "kube-apiserver")
		s.sleep(s.size.away / 2)
		s.agents.kill(s.t, 0) // one has to start without it
		s.agents.start(s.t, 0)
		s.sleep(s.size.away / 2)
		restart(s.t)
		s.awaitReady()
		s.welcomeEverywhere(a)()
	}})
	s.make(fault{kind: kindAPI, name: "etcd crashes and comes back", do: func(a *attempt) {
		restart := s.Crash(s.t, "etcd")
		s.sleep(2 * time.Second)
		restart(s.t)
		s.awaitAPI()
		s.welcomeEverywhere(a)()
	}})
	s.make(fault{kind: kindAPI, name: "etcd, API server and all agents crash", do: func(a *attempt) {
		etcd, api := s.Crash(s.t, "etcd"), s.Crash(s.t, "kube-apiserver")
		for i := range s.Nodes {
			s.agents.kill(s.t, i)
			s.agents.start(s.t, i)
		}
		s.sleep(time.Second)
		etcd(s.t)
		api(s.t)
		s.awaitReady()
		s.welcomeEverywhere(a)()
	}})
}

func (s *suite) awaitAPI() {
	s.t.Helper()
	s.eventually(time.Minute, func() bool { return s.touch(client.ObjectKey{Namespace: namespace, Name: prisoner}) == nil }, "the API server doesn't work again")
}

// iptablesFaults break what agents write rules with, while policies change.
func (s *suite) iptablesFaults() {
	each := func(do func(node int)) {
		for i := range s.Nodes {
			do(i)
		}
	}
	broken := func(name string, script string) {
		s.make(fault{kind: kindIPTables, name: name, do: func(a *attempt) {
			each(func(i int) { s.agents.restoreIs(s.t, i, script) })
			s.sleep(s.size.held / 2)
			s.agents.kill(s.t, 0) // one has to start with it
			see := s.welcomeEverywhere(a)
			s.agents.start(s.t, 0)
			s.sleep(s.size.held / 2)
			each(func(i int) { s.agents.restoreWorks(s.t, i) })
			see()
		}})
	}
	broken("iptables-restore fails", "cat >/dev/null; echo 'iptables-restore: it is broken' >&2; exit 1")
	lock := filepath.Join(s.t.TempDir(), "hang.lock")
	release := holdLock(s.t, lock)
	broken("iptables-restore hangs", scriptHangs(lock))
	release()

	s.make(fault{kind: kindIPTables, name: fmt.Sprintf("the lock of iptables is held for %s", s.size.held), do: func(a *attempt) {
		var releases []func()
		each(func(i int) { releases = append(releases, holdLock(s.t, s.Nodes[i].LockFile())) })
		see := s.welcomeEverywhere(a)
		s.sleep(s.size.held)
		for _, release := range releases {
			release()
		}
		see()
	}})
	s.make(fault{kind: kindIPTables, name: "the lock file of iptables can't be opened", do: func(a *attempt) {
		each(func(i int) {
			require.NoError(s.t, os.RemoveAll(s.Nodes[i].LockFile()))
			require.NoError(s.t, os.Mkdir(s.Nodes[i].LockFile(), 0o700))
		})
		see := s.welcomeEverywhere(a)
		s.sleep(s.size.held)
		each(func(i int) { require.NoError(s.t, os.Remove(s.Nodes[i].LockFile())) })
		see()
	}})
	s.make(fault{kind: kindIPTables, name: "policies are in force again afterwards", do: func(*attempt) {
		s.churn.stop()
		s.awaitRecovery()
		s.churn.start()
	}})
}

// manyPolicies creates policies at once, waits until all are in force, and deletes
// them at once.
func (s *suite) manyPolicies() {
	const burst = "burst"
	n := s.size.policies
	s.make(fault{kind: kindPolicies, name: fmt.Sprintf("%d policies are created at once", n), do: func(a *attempt) {
		require.NoError(s.t, s.createAll(burst, n))
		defer s.welcomeEverywhere(a)()
		s.AwaitEnforced(s.t, client.ObjectKey{Namespace: namespace, Name: fmt.Sprintf("%s-%d", burst, n-1)})
	}})
	s.make(fault{kind: kindPolicies, name: fmt.Sprintf("%d policies are deleted at once", n), do: func(*attempt) {
		require.NoError(s.t, s.Client.DeleteAllOf(s.ctx, &networkingv1.NetworkPolicy{}, client.InNamespace(namespace), client.MatchingLabels{burst: "true"}))
		s.awaitRecovery()
	}})
	s.make(fault{kind: kindPolicies, name: "the namespace of the policies changes its labels", do: func(*attempt) {
		object := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: namespace}}
		for i := range 20 {
			patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:"%d"}}}`, tint, i)
			require.NoError(s.t, s.Client.Patch(s.ctx, object, client.RawPatch("application/merge-patch+json", patch)))
			s.sleep(20 * time.Millisecond)
		}
	}})
}

// writers is how many requests run at once.
const writers = 20

// createAll creates policies at once, with a label of their name.
func (s *suite) createAll(name string, count int) error {
	failures := make([]error, writers)
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			for i := w; i < count && failures[w] == nil; i += writers {
				p := extraPolicy(fmt.Sprintf("%s-%d", name, i), i)
				p.Labels = map[string]string{name: "true"}
				failures[w] = s.Client.Create(s.ctx, p)
			}
		})
	}
	done.Wait()
	return errors.Join(failures...)
}
