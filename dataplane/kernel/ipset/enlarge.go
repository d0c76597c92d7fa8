package ipset

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/vishvananda/netlink/nl"
)

// defaultCapacity is how many elements a new set may hold before it has to grow. The memory of a
// set depends on the elements that it holds, and not on those that it may hold (mtype_add and
// mtype_resize in net/netfilter/ipset/ip_set_hash_gen.h), and a look-up costs the same. So a small
// bound would save nothing. This one is seven times the pods of the largest clusters that
// Kubernetes supports.
const defaultCapacity = 1 << 20

// growsBy is the least factor by which a set grows, so that it seldom has to.
const growsBy = 2

// enlarge replaces a set by a larger one with the same members, which has room for
// more elements. A packet meets one of the two sets, and both hold the same: the
// kernel swaps them in one step, and the rules that name the set use the other one.
//
// No other program uses the name of the new set, and no other run of the agent does. If the agent
// dies before the end, an unwanted set with Moat's prefix remains, and the next complete comparison
// destroys it.
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
	// After the swap this name is that of the small set. While a program lists the sets, the
	// kernel can't destroy it. Then the next complete comparison does.
	if destroyErr := k.destroy(spare.Name); destroyErr != nil && !errors.Is(destroyErr, errBusy) {
		err = errors.Join(err, destroyErr)
	}
	if err != nil {
		return fmt.Errorf("replacing it by a larger one: %w", err)
	}
	return nil
}

// spareName is the name of the set that takes another one's place. It has at most the 31
// characters that the kernel allows.
func spareName(name string) string { return fmt.Sprintf("%s-%04x", name, rand.N(1<<16)) }
