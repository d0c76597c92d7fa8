package iptables

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/nfnetlink"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Observer looks at the tables of both backends and families without starting a
// program and without taking a lock: to see that nothing changed costs microseconds
// with nft and about a microsecond for each rule with legacy. It makes no table where
// there is none. It belongs to the network namespace of the thread that opened it
// and isn't safe for use by several goroutines at once.
type Observer struct {
	nft    *nfnetlink.Socket
	legacy map[ruleset.Family]int // a socket for each family
}

// OpenObserver makes an Observer for the network namespace of the calling thread.
func OpenObserver() (*Observer, error) {
	nft, err := nfnetlink.Open(nfnetlink.Long)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter netlink socket: %w", err)
	}
	o := &Observer{nft: nft, legacy: map[ruleset.Family]int{}}
	for _, family := range ruleset.Families() {
		// A kernel without IPv6 has no such tables either.
		if socket, err := openLegacy(family); err == nil {
			o.legacy[family] = socket
		}
	}
	return o, nil
}

// Close gives the sockets up.
func (o *Observer) Close() {
	o.nft.Close()
	for _, socket := range o.legacy {
		_ = unix.Close(socket)
	}
}

// Fingerprint stands for what all mangle tables of the node hold, chains and rules
// in their order, without counters. Two are compared with Same. The zero value is
// like no other.
type Fingerprint struct {
	generation uint32 // of all nft tables: with the same one nothing in them has changed
	nft        uint64
	legacy     [2]uint64
	taken      bool
}

// Same reports whether the tables hold the same.
func (f Fingerprint) Same(other Fingerprint) bool {
	return f.taken && other.taken && f.nft == other.nft && f.legacy == other.legacy
}

// Fingerprint takes the fingerprint of the present. An earlier one spares it to
// read nft's rules where the kernel says that nobody wrote any since.
func (o *Observer) Fingerprint(earlier Fingerprint) (Fingerprint, error) {
	now := Fingerprint{taken: true}
	// The generation is that of before the rules are read: what is written while they
	// are has a later one, and shows next time.
	number, err := generation(o.nft)
	if err != nil {
		return Fingerprint{}, fmt.Errorf("asking for the generation of nft's rules: %w", err)
	}
	now.generation, now.nft = number, earlier.nft
	if !earlier.taken || number != earlier.generation {
		if now.nft, err = hashTable(o.nft, tableName); err != nil {
			return Fingerprint{}, fmt.Errorf("reading nft's mangle tables: %w", err)
		}
	}
	for i, family := range ruleset.Families() {
		if now.legacy[i], err = o.hashLegacy(family); err != nil {
			return Fingerprint{}, fmt.Errorf("reading the legacy mangle table of %s: %w", family, err)
		}
	}
	return now, nil
}

// Chain is a chain of the kernel, of whatever program.
type Chain struct {
	Backend Backend
	Family  string // IPv4, IPv6, or what nft calls its other families
	Table   string
	Name    string
}

// Chains lists the chains of every table of the node, native nft tables too.
func (o *Observer) Chains() ([]Chain, error) {
	chains, err := nftChains(o.nft)
	if err != nil {
		return nil, fmt.Errorf("listing nft's chains: %w", err)
	}
	for _, family := range ruleset.Families() {
		for _, table := range legacyTables(family) {
			blob, err := o.readLegacy(family, table)
			if err != nil {
				return nil, fmt.Errorf("reading the legacy table %s of %s: %w", table, family, err)
			}
			for _, name := range legacyLayouts[family].chains(blob) {
				chains = append(chains, Chain{Legacy, family.String(), table, name})
			}
		}
	}
	return chains, nil
}
