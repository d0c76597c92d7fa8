package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// engineMarks are what other engines of NetworkPolicy leave in the packet filter:
// their chains, as the beginning of a name, and the native nft tables of those that
// have one. Chains with which they only route or serve Services aren't among them.
var engineMarks = []struct {
	engine string
	chains []string
	tables []string
}{
	{"Antrea", []string{"ANTREA-"}, nil},
	{"Azure NPM", []string{"AZURE-NPM"}, nil},
	{"Calico", []string{"cali-"}, []string{"calico"}},
	{"Cilium", []string{"CILIUM_", "OLD_CILIUM_"}, nil},
	{"kindnet", nil, []string{"kindnet-network-policies"}},
	{"kube-network-policies", nil, []string{"kube-network-policies"}},
	{"kube-router", []string{"KUBE-ROUTER-INPUT", "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-OUTPUT", "KUBE-NWPLCY-", "KUBE-POD-FW-"}, nil},
	{"Weave Net", []string{"WEAVE-NPC"}, nil},
}

// enginesOf names the other engines that have left any of the chains, each with
// the first that tells of it.
func enginesOf(chains []iptables.Chain) []string {
	var found []string
	for _, mark := range engineMarks {
		at := slices.IndexFunc(chains, func(chain iptables.Chain) bool {
			return slices.Contains(mark.tables, chain.Table) ||
				slices.ContainsFunc(mark.chains, func(prefix string) bool { return strings.HasPrefix(chain.Name, prefix) })
		})
		if at >= 0 {
			chain := chains[at]
			found = append(found, fmt.Sprintf("%s (chain %s in table %s of %s, %s)", mark.engine, chain.Name, chain.Table, chain.Backend, chain.Family))
		}
	}
	return found
}

// stray is a table of iptables in which an older version of Moat had its chains.
type stray struct {
	backend iptables.Backend
	family  ruleset.Family
	table   string
}

// otherTables are iptables' tables but mangle.
var otherTables = []string{"filter", "nat", "raw", "security"}

// straysOf lists the tables with chains of Moat's that don't belong there.
func straysOf(chains []iptables.Chain) []stray {
	var strays []stray
	for _, family := range ruleset.Families() {
		for _, chain := range chains {
			s := stray{chain.Backend, family, chain.Table}
			if chain.Family == family.String() && strings.HasPrefix(chain.Name, compile.ChainPrefix) &&
				slices.Contains(otherTables, chain.Table) && !slices.Contains(strays, s) {
				strays = append(strays, s)
			}
		}
	}
	return strays
}

// remove takes Moat's chains and hooks out of the table.
func (s *stray) remove(ctx context.Context, onRestore func(error)) (iptables.Change, error) {
	runner, err := iptables.NewRunner(s.backend, s.family, compile.ChainPrefix)
	if err != nil {
		return iptables.Change{}, err
	}
	runner.OnRestore = onRestore
	return runner.In(s.table).Remove(ctx)
}

// lookAround looks for other engines and for what older versions left, at the start
// and then at most once in readEvery: legacy tables are read as a whole for it.
func (e *enforcer) lookAround() {
	i := &e.inspection
	if i.observer == nil || time.Since(i.aroundAt) < readEvery {
		return
	}
	chains, err := i.observer.Chains()
	if err != nil { // the next full read looks again
		return
	}
	i.aroundAt = time.Now()
	e.engines, e.strays = enginesOf(chains), straysOf(chains)
}

// surroundings returns what the last sync found on the node.
func (e *enforcer) surroundings() report.Surroundings {
	return report.Surroundings{Engines: e.engines, Unread: e.unread, Lacking: e.extensions.String()}
}

// leaveStrays takes Moat's chains and hooks out of the tables where an older version
// had them. By then the rules of this one are in force.
func (e *enforcer) leaveStrays(ctx context.Context) {
	for ; len(e.strays) > 0; e.strays = e.strays[1:] {
		s := e.strays[0]
		_, err := s.remove(ctx, e.restored)
		// Without its programs, and where other programs' rules are in the way, they can't be removed.
		if err != nil && !errors.Is(err, iptables.ErrMissing) && !iptables.IsUnreadable(err) {
			e.broken[s.family] = fmt.Errorf("removing what an older version left in the %s table of %s: %w", s.table, s.backend, err)
			return
		}
	}
}
