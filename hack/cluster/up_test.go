//go:build linux

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseOptions(t *testing.T) {
	o, err := parseOptions(nil)
	require.NoError(t, err)
	require.Equal(t, options{Nodes: 3, Network: networkVXLAN, IPFamily: familyIPv4, ProxyMode: proxyIPTables}, o)

	given := options{Nodes: 5, Network: networkHostGW, IPFamily: familyDual, ProxyMode: proxyNFTables}
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
	good := record{Checkout: "/a", Options: defaults, Since: time.Now(), BootID: bootID(), Complete: true}
	require.NoError(t, checkUp(&good, nil, defaults, "/a"))

	dual := defaults
	dual.IPFamily = familyDual
	for want, change := range map[string]func(r *record){
		"started from /b":         func(r *record) { r.Checkout = "/b" },
		"did not come to its end": func(r *record) { r.Complete = false },
		"up with other options":   func(r *record) { r.Options = dual },
		"--ip-family dual":        func(r *record) { r.Options = dual },
	} {
		changed := good
		change(&changed)
		require.ErrorContains(t, checkUp(&changed, nil, defaults, "/a"), want)
	}

	dead := []process{{machine: "node-2", name: "kubelet"}}
	require.ErrorContains(t, checkUp(&good, dead, defaults, "/a"), "partly dead (kubelet of node-2)")
}
