//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/hack/cluster/machine"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions(nil)
	require.NoError(t, err)
	require.Equal(t, machine.Options{Nodes: 3, Network: machine.NetworkVXLAN, IPFamily: machine.FamilyIPv4, ProxyMode: machine.ProxyIPTables}, o)

	given := machine.Options{Nodes: 5, Network: machine.NetworkHostGW, IPFamily: machine.FamilyDual, ProxyMode: machine.ProxyNFTables}
	o, err = parseOptions(strings.Fields(given.String()))
	require.NoError(t, err)
	require.Equal(t, given, o)
}

func TestParseOptionsNamesTheWrongFlag(t *testing.T) {
	for args, want := range map[string]string{
		"--nodes 0":           "--nodes 0: choose 1 to 20",
		"--nodes 21":          "--nodes 21",
		"--nodes two":         "nodes",
		"--network calico":    `--network "calico": choose vxlan or hostgw`,
		"--ip-family ipv6":    `--ip-family "ipv6": choose ipv4 or dual`,
		"--proxy-mode ipvs":   `--proxy-mode "ipvs": choose iptables or nftables`,
		"--colour blue":       "colour",
		"--network vxlan now": `unexpected argument "now"`,
	} {
		_, err := parseOptions(strings.Fields(args))
		require.ErrorContains(t, err, want, args)
		require.ErrorAs(t, err, new(usageError), args)
	}
}

// A second "up" is harmless only for the same cluster in good health.
func TestCheckUp(t *testing.T) {
	defaults, err := parseOptions(nil)
	require.NoError(t, err)
	good := machine.Record{Checkout: "/a", Options: defaults, Since: time.Now(), BootID: machine.BootID(), Complete: true}
	require.NoError(t, checkUp(&good, nil, defaults, "/a"))

	dual := defaults
	dual.IPFamily = machine.FamilyDual
	for want, change := range map[string]func(r *machine.Record){
		"started from /b":         func(r *machine.Record) { r.Checkout = "/b" },
		"did not come to its end": func(r *machine.Record) { r.Complete = false },
		"up with other options":   func(r *machine.Record) { r.Options = dual },
		"--ip-family dual":        func(r *machine.Record) { r.Options = dual },
	} {
		changed := good
		change(&changed)
		require.ErrorContains(t, checkUp(&changed, nil, defaults, "/a"), want)
	}

	dead := []machine.Process{{Machine: "node-2", Name: "kubelet"}}
	require.ErrorContains(t, checkUp(&good, dead, defaults, "/a"), "partly dead (kubelet of node-2)")
}
