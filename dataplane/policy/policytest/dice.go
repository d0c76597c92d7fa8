// Package policytest makes random clusters with random policies, for the tests
// that compare two judges of the same flows.
//
// What it makes is small and crowded: few labels, ports and address blocks, so
// that things meet, and now and then an unreadable part.
package policytest

import "math/rand/v2"

// Dice turns bytes into choices, so that a fuzzer can steer what is generated.
// When the bytes are used up, every choice is the first option, which is the
// simplest one.
type Dice struct {
	data []byte

	// stored leaves out what an API server doesn't store: see StoredCluster.
	stored bool
}

// NewDice returns dice that the bytes decide.
func NewDice(data []byte) *Dice { return &Dice{data: data} }

// RandomDice returns dice for n choices that the seed decides.
func RandomDice(seed uint64, n int) *Dice { return NewDice(RandomBytes(seed, n)) }

// RandomBytes returns n bytes that the seed decides.
func RandomBytes(seed uint64, n int) []byte {
	source := rand.New(rand.NewPCG(seed, 1))
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(source.Uint32())
	}
	return data
}

func (d *Dice) below(n int) int {
	if len(d.data) == 0 {
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return int(b) % n
}

func (d *Dice) oneIn(n int) bool { return d.below(n) == n-1 }

func pick[T any](d *Dice, options ...T) T { return options[d.below(len(options))] }
