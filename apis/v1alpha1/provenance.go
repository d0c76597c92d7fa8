package v1alpha1

import (
	"encoding/json"
	"fmt"
)

// ProvenanceAnnotation is the annotation of a generated NetworkPolicy that says which rule of
// its AppIsolation each of its rules comes from: see Provenance. It is a hint for people and
// tools. Nothing is enforced by it.
const ProvenanceAnnotation = "isolation.moat.dev/provenance"

// ProvenanceImplicitDNS stands for the rule that lets pods ask DNS (spec.implicit.dns). No
// rule of a user can have this name.
const ProvenanceImplicitDNS = "implicit.dns"

const (
	provenanceVersion = 1

	// maxProvenance bounds the annotation, in bytes. All annotations of an object share 256 KB.
	maxProvenance = 4 << 10
)

// Provenance names for each rule of a NetworkPolicy, in their order, the rule of the
// AppIsolation that it comes from. Several rules may come from one, and a rule that allows
// no peer becomes none. The zero value is of a policy without rules.
type Provenance struct {
	Ingress, Egress []string

	// Omitted is true where the names don't fit into 4 KB. Then there are none.
	Omitted bool
}

// storedProvenance is the annotation's value.
type storedProvenance struct {
	Version int      `json:"v"`
	Ingress []string `json:"ingress,omitempty"`
	Egress  []string `json:"egress,omitempty"`
	Omitted bool     `json:"omitted,omitempty"`
}

// String returns the annotation's value, which has 4 KB at most.
func (p Provenance) String() string {
	text, _ := json.Marshal(storedProvenance{provenanceVersion, p.Ingress, p.Egress, p.Omitted}) // Plain data.
	if len(text) > maxProvenance {
		return Provenance{Omitted: true}.String()
	}
	return string(text)
}

// ParseProvenance reads the annotation's value. It fails where the value isn't one that String
// returns, or is of a later version.
func ParseProvenance(text string) (Provenance, error) {
	if len(text) > maxProvenance {
		return Provenance{}, fmt.Errorf("reading the annotation %s: it has %d bytes, and %d at most", ProvenanceAnnotation, len(text), maxProvenance)
	}
	var stored storedProvenance
	if err := json.Unmarshal([]byte(text), &stored); err != nil {
		return Provenance{}, fmt.Errorf("reading the annotation %s: %w", ProvenanceAnnotation, err)
	}
	if stored.Version != provenanceVersion {
		return Provenance{}, fmt.Errorf("reading the annotation %s: its version is %d, and this program knows %d", ProvenanceAnnotation, stored.Version, provenanceVersion)
	}
	return Provenance{stored.Ingress, stored.Egress, stored.Omitted}, nil
}
