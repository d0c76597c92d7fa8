package iptables_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// What iptables 1.8 says where the kernel lacks a module.
func TestMissingModule(t *testing.T) {
	for stderr, want := range map[string]string{
		"Warning: Extension set revision 0 not supported, missing kernel module?\niptables-nft-restore: line 4: RULE_APPEND failed (No such file or directory): rule in chain MOAT-FORWARD": "xt_set or nft_compat",
		"iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'mangle'":                                                                                           "",
		"iptables v1.8.9 (legacy): can't initialize iptables table `mangle': Table does not exist (do you need to insmod?)":                                                                 "iptable_mangle",
		"ip6tables v1.8.9 (legacy): can't initialize ip6tables table `mangle': Table does not exist (do you need to insmod?)":                                                               "ip6table_mangle",
		"iptables-restore: line 7 failed": "",
	} {
		runner, _ := fakeRunner(t, "", `echo "`+strings.ReplaceAll(stderr, "`", "\\`")+`" >&2; exit 1`)
		err := runner.Apply(context.Background(), iptables.Diff(iptables.Table{}, someTable("a")))
		require.Error(t, err)
		require.Equal(t, want, iptables.MissingModule(err), stderr)
	}
	require.Empty(t, iptables.MissingModule(errors.New("some other")))
}
