package metrics

// Snapshot is what an agent has in the kernel after a sync. The maps are by family or by
// direction.
type Snapshot struct {
	Failed      int // policies that aren't in force as they are written
	Quarantined int // policies whose rules the kernel refuses
	Conflict    bool

	Chains, Rules map[string]int // the numbers of a family that is left out stay as they were
	Sets, Members map[string]int
	Missing       map[string]int // matches
	Isolated      map[string]int // pods

	Unjudged int   // pods whose packets aren't compared with their addresses
	Spoofing []Pod // pods that have sent forged packets
}

// Show takes a snapshot.
func (m *Metrics) Show(s *Snapshot) {
	m.failed.Set(float64(s.Failed))
	m.quarantined.Set(float64(s.Quarantined))
	m.conflict.Set(gaugeOf[s.Conflict])
	m.unjudged.Set(float64(s.Unjudged))
	m.spoofing.show(s.Spoofing)
	for family, chains := range s.Chains {
		m.chains.WithLabelValues(family).Set(float64(chains))
		m.rules.WithLabelValues(family).Set(float64(s.Rules[family]))
	}
	for _, family := range m.labels.Families {
		m.missing.WithLabelValues(family).Set(float64(s.Missing[family]))
		m.sets.WithLabelValues(family).Set(float64(s.Sets[family]))
		m.members.WithLabelValues(family).Set(float64(s.Members[family]))
	}
	for _, direction := range m.labels.Directions {
		m.isolated.WithLabelValues(direction).Set(float64(s.Isolated[direction]))
	}
}
