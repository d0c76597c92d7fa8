package ipset

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/vishvananda/netlink/nl"
)

// defaultCapacity is what a new set may hold before it has to grow. The kernel
// takes memory for what a set holds and not for what it may hold (mtype_add and
// mtype_resize in net/netfilter/ipset/ip_set_hash_gen.h), and to look an element up
// costs the same: a small bound would save nothing. This one is seven times the
// pods of the largest clusters that Kubernetes supports.
const defaultCapacity = 1 << 20

// growsBy is the factor by which a set grows at least, so that growing doesn't
// come often.
const growsBy = 2

// enlarge replaces a set by a larger one with the same members, which has room for
// more besides. Packets see the one or the other, and both hold the same: the
// kernel swaps them in one step, and the rules that name the set follow.
//
// The new set has a name that nobody else can use, be it another run of the agent.
// If the agent dies on the way, the set is one of Moat's that nobody wants, and the
// next complete comparison destroys it.
func (k *Kernel) enlarge(name string, more int) error {
	old, err := k.readOne(name)
	if err != nil {
		return err
	}
	needed := uint64(len(old.Members) + more)
	capacity := max(needed, growsBy*uint64(old.capacity))
	if capacity > math.MaxUint32 {
		return fmt.Errorf("making room for %d elements: %w", needed, errFull)
	}
	spare := old.Set
	spare.Name = spareName(name)
	if err := k.create(&spare, uint32(capacity)); err != nil {
		return err
	}
	_, err = k.sendAll(nl.IPSET_CMD_ADD, missing(spare, spare.Members, nil))
	if err == nil {
		k.count()
		err = k.handle.IpsetSwap(spare.Name, name)
	}
	// After the swap this name is that of the small set. If a program lists the
	// sets at this moment it can't go yet, and goes like that of an agent that died.
	if destroyErr := k.destroy(spare.Name); destroyErr != nil && !errors.Is(destroyErr, errBusy) {
		err = errors.Join(err, destroyErr)
	}
	if err != nil {
		return fmt.Errorf("replacing it by a larger one: %w", err)
	}
	return nil
}

// spareName is the name of the set that takes another one's place, within the 31
// characters of the kernel.
func spareName(name string) string { return fmt.Sprintf("%s-%04x", name, rand.N(1<<16)) }
