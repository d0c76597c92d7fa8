package dataplane

import (
	"errors"
	"maps"

	"github.com/moat-dev/moat/dataplane/compile"
)

// errNameTaken is why something of a policy isn't in force. It takes two contents whose
// digests begin with the same 80 bits: they come about only on purpose.
var errNameTaken = errors.New("a set or chain of the policy would have the name of another one, since the digests of both begin alike, " +
	"so that what needs it allows nothing: change a selector, a block or a port of the policy")

// noteNames takes the names of an output that is to be written: from then on the kernel
// may hold them, whatever comes of it.
func (e *enforcer) noteNames(output *compile.Output) {
	family := output.Ruleset.Family
	if e.held[family] == nil {
		e.held[family] = compile.Names{}
	}
	maps.Copy(e.held[family], output.Names)
	for _, p := range output.Clashing {
		e.clashes[p.UID] = errNameTaken
	}
}

// letNamesGo forgets names once the kernel holds the outputs and nothing else, but for sets
// that are in use still. What clashed with one that is gone is compiled again by the next sync.
func (e *enforcer) letNamesGo(busy []string) {
	if len(busy) > 0 {
		return
	}
	for i := range e.outputs {
		e.held[e.outputs[i].Ruleset.Family] = maps.Clone(e.outputs[i].Names)
	}
	if len(e.clashes) > 0 {
		e.outputs = nil
	}
}
