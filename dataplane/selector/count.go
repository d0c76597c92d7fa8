package selector

import "github.com/moat-dev/moat/dataplane/policy"

// Count returns how many addresses the selected pods have, and how many pairs of an
// address with a named port. It follows no set. It stops where there are more addresses than
// most.
//
// The indexes of keys that it makes stay until the next Want: what is counted is often wanted
// next, and many selectors require the same keys.
func (ix *Index) Count(selected *policy.PodPeer, most int) (addresses, ports int) {
	s := &set{peers: policy.PeerSet{Pods: *selected}}
	s.indexKey = ix.indexKeyOf(s)
	for _, key := range s.indexKey.required {
		if ix.lent[key] {
			ix.release(key)
		}
		ix.lent[key] = true
	}
	for _, value := range s.indexKey.values {
		ix.labels[s.indexKey.key].postings(value) // candidates reads the postings of each value
	}
	ix.candidates(s, func(c *class) {
		if addresses > most || !s.peers.Pods.MatchesNamespace(c.namespace.name, ix.namespaces) || !s.peers.Pods.Pods.Matches(c.labels) {
			return
		}
		for _, entry := range c.entries {
			addresses += len(entry.pod.Addrs)
			ports += len(entry.pod.Addrs) * len(entry.pod.Ports)
		}
	})
	for _, value := range s.indexKey.values {
		ix.labels[s.indexKey.key].tidy(value)
	}
	return addresses, ports
}

// takeBack removes the indexes that Count keeps.
func (ix *Index) takeBack() {
	for key := range ix.lent {
		ix.release(key)
	}
	clear(ix.lent)
}

// release says that one set fewer requires a value of the key.
func (ix *Index) release(key string) {
	if index := ix.labels[key]; index.users > 1 {
		index.users--
	} else {
		delete(ix.labels, key)
	}
}
