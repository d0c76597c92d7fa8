package dataplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
)

// Timing of the looks at the table of connections.
const (
	// looksPerChange: a packet that passed the rules just before they changed becomes
	// an entry just after, perhaps behind the place that a look has come to.
	looksPerChange = 2

	// pauseLeast is the least time between two looks. The pause grows with what a look
	// takes, pauseFactor times, so that looks take half a per cent of a core while
	// policies change all the time: the kernel goes through all buckets of its table for
	// each, 5 ms for the 262,144 of a node of 16 GiB, were it empty. A change that comes
	// just after a look began is found by the next: from the begin of the one to the end of
	// the other it may take pauseMost, or it would not cut within a second.
	pauseLeast  = 250 * time.Millisecond
	pauseMost   = 750 * time.Millisecond
	pauseFactor = 199

	// looksPerGap: where the hooks were missing the kernel may have tracked nothing, and
	// it picks up a connection of that time with the next packet, which may come late.
	// With their pauses so many looks take four seconds at least. A gap is rare, and is open
	// until its connections are cut, so the looks may take two per cent of a core.
	looksPerGap    = 16
	gapPauseFactor = 49

	// watchEvery is the time between looks while something is cut, to see what is
	// over, and for gapWatch after the hooks were missing.
	watchEvery = 5 * time.Second
	gapWatch   = 2 * time.Minute

	// idleEvery is the time between looks while nothing asks for one. A connection
	// that was silent for long may be picked up at any time.
	idleEvery = 2 * time.Minute

	// judgedAtOnce is how many classes are judged without letting go of the model,
	// which informers wait for.
	judgedAtOnce = 256
)

// cutter looks for established connections that policies forbid now. It works
// beside the sync loop, since a look at a full table takes longer than a sync: the
// loop asks for looks, and judges once more what they found.
type cutter struct {
	metrics *metrics.Metrics
	wake    chan struct{} // holds one signal

	mu       sync.Mutex
	table    *conntrack.Table
	ports    conntrack.Ports
	routes   *netlink.Handle
	model    *node.Model
	view     *view
	released conntrack.Addresses
	owed     int                          // looks that were asked for
	watching bool                         // something is cut
	cut      map[conntrack.Class]struct{} // what of it was picked up
	gapLooks int                          // of the looks owed, those after the hooks were missing
	gapUntil time.Time
	gapFrom  time.Time                    // what was picked up since then, no look has seen
	answered map[conntrack.Class]struct{} // those of the look before
	found    *findings
	err      error
}

// findings are what a look found.
type findings struct {
	at        time.Time               // when it began
	forbidden map[conntrack.Class]int // with the number of connections
	own       nodeAddresses           // none where there was nothing to judge
}

func newCutter(m *metrics.Metrics) *cutter {
	return &cutter{metrics: m, wake: make(chan struct{}, 1)}
}

// open connects to the network namespace of the calling thread, once.
func (c *cutter) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table != nil {
		return nil
	}
	routes, err := host.OpenRoutes()
	if err != nil {
		return err
	}
	ports, err := conntrack.ClientPorts()
	if err != nil {
		routes.Close()
		return err
	}
	table, err := conntrack.Open()
	if err != nil {
		routes.Close()
		return err
	}
	c.table, c.routes, c.ports = table, routes, ports
	return nil
}

// clientPorts returns the ports that clients use, once the cutter is open.
func (c *cutter) clientPorts() conntrack.Ports {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ports
}

// close ends the connection. Nothing may be running any more.
func (c *cutter) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table != nil {
		c.table.Close()
		c.routes.Close()
		c.table = nil
	}
}

// request asks for looks, after rules became stricter or addresses were released.
func (c *cutter) request(m *node.Model, v *view, released conntrack.Addresses) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owed == 0 {
		c.signal()
	}
	c.model, c.view, c.owed = m, v, max(c.owed, looksPerChange)
	if c.released == nil {
		c.released = conntrack.Addresses{}
	}
	maps.Copy(c.released, released)
}

// resume asks for looks after the hooks were missing and are there again, since a time.
func (c *cutter) resume(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gapLooks == 0 {
		c.gapFrom = since
	}
	c.owed, c.gapLooks, c.gapUntil = looksPerGap, looksPerGap, time.Now().Add(gapWatch)
	c.signal()
}

// watch says whether something is cut, and what of it the kernel had picked up.
func (c *cutter) watch(cutting bool, v *view, pickedUp map[conntrack.Class]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := c.watching != cutting
	c.watching, c.view, c.cut = cutting, v, pickedUp
	if changed {
		c.signal()
	}
}

// signal lets run see anew what there is to do.
func (c *cutter) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// take returns what was found since it was asked last, nil for nothing.
func (c *cutter) take() *findings {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.found
	c.found = nil
	return found
}

// failure returns why the last look failed, or nil.
func (c *cutter) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// start begins to look beside the caller. The function that it returns ends that.
func (c *cutter) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { c.run(ctx) })
	return func() {
		cancel()
		running.Wait()
		c.close()
	}
}

// run looks until the context ends.
func (c *cutter) run(ctx context.Context) {
	var next, last time.Time // when a look is due that was asked for, and when the last one ended
	for {
		c.mu.Lock()
		due := next
		if c.owed == 0 {
			due = last.Add(c.pause())
		}
		idle := c.table == nil || c.model == nil
		c.mu.Unlock()
		timer := time.NewTimer(time.Until(due))
		if idle {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-c.wake:
			timer.Stop()
		case <-timer.C:
			start := time.Now()
			c.look(start)
			end := time.Now()
			next, last = end.Add(c.rest(end.Sub(start))), end
		}
	}
}

// rest is the time between a look that took so long and the next one that was asked for.
func (c *cutter) rest(took time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	factor := time.Duration(pauseFactor)
	if c.gapLooks > 0 {
		factor = gapPauseFactor
	}
	return max(pauseLeast, min(factor*took, pauseMost-2*took))
}

// pause is the time between looks that nobody asked for. The lock has to be held.
func (c *cutter) pause() time.Duration {
	if c.watching || time.Now().Before(c.gapUntil) {
		return watchEvery
	}
	return idleEvery
}

// look goes through the table once.
func (c *cutter) look(start time.Time) {
	c.mu.Lock()
	m, v, owed, watching := c.model, c.view, c.owed, c.watching
	released := c.released
	scan := conntrack.Scan{ClientPorts: c.ports, Resumed: c.gapLooks > 0, Cut: c.cut, Answered: c.answered}
	scan.Late = scan.Resumed && start.Sub(c.gapFrom) >= conntrack.AssuredAfter
	c.owed, c.gapLooks, c.released = max(0, owed-1), max(0, c.gapLooks-1), nil
	c.mu.Unlock()

	scan.Isolated, scan.Released = isolatedAddresses(v), m.Unowned(released)
	found, err := c.search(m, v, &scan)
	if err == nil && watching && found.own.all == nil { // the sync loop judges by them
		found.own, err = c.ownAddresses(v.links[policy.Egress])
	}
	c.metrics.Scanned(start, err)
	c.mu.Lock()
	c.err = err
	if err != nil {
		c.owed = max(c.owed, 1)
		c.released = joinAddresses(released, c.released)
		c.mu.Unlock()
		return
	}
	found.at, c.gapFrom, c.answered = start, start, scan.Answers
	news := c.watching || len(found.forbidden) > 0
	if news {
		c.found = found
	}
	c.mu.Unlock()
	if news {
		m.Poke()
	}
}

func joinAddresses(a, b conntrack.Addresses) conntrack.Addresses {
	joined := conntrack.Addresses{}
	maps.Copy(joined, a)
	maps.Copy(joined, b)
	return joined
}

// search returns the forbidden classes, and forgets the entries of released
// addresses.
func (c *cutter) search(m *node.Model, v *view, scan *conntrack.Scan) (*findings, error) {
	for d, links := range v.links {
		scan.Links[d] = len(links) > 0
	}
	if err := c.table.List(scan.Add); err != nil {
		return nil, err
	}
	if err := c.table.Delete(scan.Forget); err != nil {
		return nil, err
	}
	if len(scan.Classes) == 0 {
		return &findings{}, nil
	}
	own, err := c.ownAddresses(v.links[policy.Egress])
	if err != nil {
		return nil, err
	}
	return &findings{forbidden: judge(m, newNodeLookup(m, v, own), scan.Classes), own: own}, nil
}

// judge returns the classes that are forbidden.
func judge(m *node.Model, l *nodeLookup, classes map[conntrack.Class]int) map[conntrack.Class]int {
	forbidden := map[conntrack.Class]int{}
	for some := range slices.Chunk(slices.Collect(maps.Keys(classes)), judgedAtOnce) {
		m.Peers(func(p node.Peers) {
			l.peers = p
			for i := range some {
				if l.forbids(&some[i]) != (causes{}) {
					forbidden[some[i]] = classes[some[i]]
				}
			}
		})
	}
	return forbidden
}

func isolatedAddresses(v *view) [policy.Directions]conntrack.Addresses {
	var isolated [policy.Directions]conntrack.Addresses
	for d := range isolated {
		isolated[d] = conntrack.Addresses{}
		for i := range v.Endpoints {
			if v.Endpoints[i].Isolated(policy.Direction(d)) {
				for _, addr := range v.Endpoints[i].Pod.Addrs {
					isolated[d][addr] = struct{}{}
				}
			}
		}
	}
	return isolated
}

// ownAddresses returns the addresses of the node itself, which has the given links
// closed for what pods send.
func (c *cutter) ownAddresses(closed []string) (nodeAddresses, error) {
	own := nodeAddresses{all: conntrack.Addresses{}, closed: conntrack.Addresses{}}
	indexes, err := c.indexes(closed)
	if err != nil {
		return own, err
	}
	list, err := c.routes.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return own, fmt.Errorf("listing the node's addresses: %w", err)
	}
	for _, entry := range list {
		addr, ok := netip.AddrFromSlice(entry.IP)
		if !ok {
			continue
		}
		own.all[addr.Unmap()] = struct{}{}
		if indexes[entry.LinkIndex] {
			own.closed[addr.Unmap()] = struct{}{}
		}
	}
	return own, nil
}

// indexes returns those of links by their names. A link that has gone has none.
func (c *cutter) indexes(names []string) (map[int]bool, error) {
	indexes := map[int]bool{}
	for _, name := range names {
		link, err := c.routes.LinkByName(name)
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("finding the link %s: %w", name, err)
		}
		indexes[link.Attrs().Index] = true
	}
	return indexes, nil
}
