package selector

import "github.com/moat-dev/moat/dataplane/policy"

// Count returns how many addresses the selected pods have, and how many pairs of an
// address with a named port, without following them. It stops where there are more
// addresses than most.
//
// The columns that it makes stay until the next Want: what is counted is often wanted
// next, and many selectors ask for the same keys.
func (ix *Index) Count(selected *policy.PodPeer, most int) (addresses, ports int) {
	s := &set{peers: policy.PeerSet{Pods: *selected}}
	s.anchor = ix.anchorOf(s)
	for _, key := range s.anchor.required {
		if ix.lent[key] {
			ix.release(key)
		}
		ix.lent[key] = true
	}
	for _, value := range s.anchor.values {
		ix.columns[s.anchor.key].bucket(value) // candidates looks into each
	}
	ix.candidates(s, func(c *class) {
		if addresses > most || !s.peers.Pods.MatchesNamespace(c.space.name, ix.namespaces) || !s.peers.Pods.Pods.Matches(c.labels) {
			return
		}
		for _, st := range c.seats {
			addresses += len(st.pod.Addrs)
			ports += len(st.pod.Addrs) * len(st.pod.Ports)
		}
	})
	for _, value := range s.anchor.values {
		ix.columns[s.anchor.key].tidy(value)
	}
	return addresses, ports
}

// takeBack ends what Count keeps.
func (ix *Index) takeBack() {
	for key := range ix.lent {
		ix.release(key)
	}
	clear(ix.lent)
}

// release says that one set less requires a value of the key.
func (ix *Index) release(key string) {
	if col := ix.columns[key]; col.users > 1 {
		col.users--
	} else {
		delete(ix.columns, key)
	}
}
