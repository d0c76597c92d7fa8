package flows

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

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
)

// Timing of the scans of the table of connections.
const (
	// ScansPerChange: a packet that passed the rules just before they changed becomes
	// an entry just after, perhaps behind the place that a scan has come to.
	ScansPerChange = 2

	// pauseLeast is the least time between two scans. The pause grows with what a scan
	// takes, pauseFactor times, so that scans take half a per cent of a core while
	// policies change all the time: the kernel goes through all buckets of its table for
	// each, 5 ms for the 262,144 of a node of 16 GiB, were it empty. A change that comes
	// just after a scan began is found by the next: from the begin of the one to the end of
	// the other it may take pauseMost, or it would not cut within a second.
	pauseLeast  = 250 * time.Millisecond
	pauseMost   = 750 * time.Millisecond
	pauseFactor = 199

	// scansPerGap: where the hooks were missing the kernel may have tracked nothing, and
	// it picks up a connection of that time with the next packet, which may come late.
	// With their pauses so many scans take four seconds at least. A gap is rare, and is open
	// until its connections are cut, so the scans may take two per cent of a core.
	scansPerGap    = 16
	gapPauseFactor = 49

	// watchEvery is the time between scans while something is cut, to see what is
	// over, and for gapWatch after the hooks were missing.
	watchEvery = 5 * time.Second
	gapWatch   = 2 * time.Minute

	// idleEvery is the time between scans while nothing asks for one. A connection
	// that was silent for long may be picked up at any time.
	idleEvery = 2 * time.Minute

	// judgedAtOnce is how many classes are judged without letting go of the model,
	// which informers wait for.
	judgedAtOnce = 256
)

// Scanner finds established connections that policies forbid now. It works
// beside the sync loop, since a scan of a full table takes longer than a sync: the
// loop asks for scans, and judges again what they found.
type Scanner struct {
	metrics *metrics.Metrics
	wake    chan struct{} // holds one signal

	mu       sync.Mutex
	table    *conntrack.Table
	ports    conntrack.Ports
	routes   *netlink.Handle
	model    *node.Model
	view     *Enforced
	released conntrack.Addresses
	owed     int                          // scans that were asked for
	watching bool                         // something is cut
	cut      map[conntrack.Class]struct{} // what of it was picked up
	gapScans int                          // of the scans owed, those after the hooks were missing
	gapUntil time.Time
	gapFrom  time.Time                    // what was picked up since then, no scan has seen
	answered map[conntrack.Class]struct{} // those of the scan before
	found    *findings
	err      error
}

// Enforced is what connections are judged by. It is immutable.
type Enforced struct {
	Endpoints []policy.Endpoint
	Gone      int // how many of the endpoints, the last ones, are orphans
	Links     compile.Links
}

// findings are what a scan found.
type findings struct {
	at        time.Time               // when it began
	forbidden map[conntrack.Class]int // with the number of connections
	own       nodeAddresses           // none where there was nothing to judge
}

// NewScanner returns one that Open and Start bring to work.
func NewScanner(m *metrics.Metrics) *Scanner {
	return &Scanner{metrics: m, wake: make(chan struct{}, 1)}
}

// Open connects to the network namespace of the calling thread, once.
func (c *Scanner) Open() error {
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

// ClientPorts returns the ports that clients use, once the cutter is open.
func (c *Scanner) ClientPorts() conntrack.Ports {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ports
}

// Close ends the connection. Nothing may be running any more.
func (c *Scanner) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table != nil {
		c.table.Close()
		c.routes.Close()
		c.table = nil
	}
}

// Request asks for scans, after rules became stricter or addresses were released.
func (c *Scanner) Request(m *node.Model, v *Enforced, released conntrack.Addresses) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owed == 0 {
		c.signal()
	}
	c.model, c.view, c.owed = m, v, max(c.owed, ScansPerChange)
	if c.released == nil {
		c.released = conntrack.Addresses{}
	}
	maps.Copy(c.released, released)
}

// Resume asks for scans after the hooks were missing and are there again, since a time.
func (c *Scanner) Resume(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gapScans == 0 {
		c.gapFrom = since
	}
	c.owed, c.gapScans, c.gapUntil = scansPerGap, scansPerGap, time.Now().Add(gapWatch)
	c.signal()
}

// Watch says whether something is cut, and what of it the kernel had picked up.
func (c *Scanner) Watch(cutting bool, v *Enforced, pickedUp map[conntrack.Class]struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed := c.watching != cutting
	c.watching, c.view, c.cut = cutting, v, pickedUp
	if changed {
		c.signal()
	}
}

// Due returns how many scans were asked for.
func (c *Scanner) Due() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owed
}

// signal has run see what there is to do.
func (c *Scanner) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Take returns what was found since it was asked last, nil for nothing.
func (c *Scanner) Take() *findings {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := c.found
	c.found = nil
	return found
}

// Failure returns why the last scan failed, or nil.
func (c *Scanner) Failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// NoteFailure notes why the last scan failed; nil: it didn't.
func (c *Scanner) NoteFailure(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// Start begins to scan beside the caller. The function that it returns ends that.
func (c *Scanner) Start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { c.run(ctx) })
	return func() {
		cancel()
		running.Wait()
		c.Close()
	}
}

// run scans until the context ends.
func (c *Scanner) run(ctx context.Context) {
	var next, last time.Time // when a scan is due that was asked for, and when the last one ended
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
			c.Scan(start)
			end := time.Now()
			next, last = end.Add(c.rest(end.Sub(start))), end
		}
	}
}

// rest is the time between a scan that took so long and the next one that was asked for.
func (c *Scanner) rest(took time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	factor := time.Duration(pauseFactor)
	if c.gapScans > 0 {
		factor = gapPauseFactor
	}
	return max(pauseLeast, min(factor*took, pauseMost-2*took))
}

// pause is the time between scans that were not asked for. The lock has to be held.
func (c *Scanner) pause() time.Duration {
	if c.watching || time.Now().Before(c.gapUntil) {
		return watchEvery
	}
	return idleEvery
}

// Scan goes through the table once.
func (c *Scanner) Scan(start time.Time) {
	c.mu.Lock()
	m, v, owed, watching := c.model, c.view, c.owed, c.watching
	released := c.released
	scan := conntrack.Scan{ClientPorts: c.ports, Resumed: c.gapScans > 0, Cut: c.cut, Answered: c.answered}
	scan.Late = scan.Resumed && start.Sub(c.gapFrom) >= conntrack.AssuredAfter
	c.owed, c.gapScans, c.released = max(0, owed-1), max(0, c.gapScans-1), nil
	c.mu.Unlock()

	scan.Isolated, scan.Released = IsolatedAddresses(v), m.Unowned(released)
	found, err := c.search(m, v, &scan)
	if err == nil && watching && found.own.all == nil { // the sync loop judges by them
		found.own, err = c.ownAddresses(v.Links[policy.Egress])
	}
	c.metrics.Scanned(start, err)
	c.NoteFailure(err)
	c.mu.Lock()
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
func (c *Scanner) search(m *node.Model, v *Enforced, scan *conntrack.Scan) (*findings, error) {
	for d, links := range v.Links {
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
	own, err := c.ownAddresses(v.Links[policy.Egress])
	if err != nil {
		return nil, err
	}
	return &findings{forbidden: judge(m, newLookup(m, v, own), scan.Classes), own: own}, nil
}

// judge returns the classes that are forbidden.
func judge(m *node.Model, l *lookup, classes map[conntrack.Class]int) map[conntrack.Class]int {
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

// IsolatedAddresses returns the addresses of the isolated pods of each direction.
func IsolatedAddresses(v *Enforced) [policy.Directions]conntrack.Addresses {
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
func (c *Scanner) ownAddresses(closed []string) (nodeAddresses, error) {
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
func (c *Scanner) indexes(names []string) (map[int]bool, error) {
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
