package proxy

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"sallyport/flow"
)

// Limits bound what the clients of one listener may take. 0 is no bound.
type Limits struct {
	Flows      int // at once
	FlowsPerIP int // at once, of one client
	RatePerIP  int // new ones a second, of one client; as many may come at once
	Handshakes int // at once; beyond, the oldest one ends
	// Prefix4 and Prefix6 say how many bits of an address make one client.
	Prefix4, Prefix6 int
}

// Limit names a bound that kept a connection out.
type Limit string

// These are the keys of `limits` in the file, but for the last, which is `flows` of
// the process: its clients wait.
const (
	LimitFlows      Limit = "flows"
	LimitFlowsPerIP Limit = "flows_per_ip"
	LimitRatePerIP  Limit = "rate_per_ip"
	LimitHandshakes Limit = "handshakes"
	LimitMemory     Limit = "memory"

	LimitProcessFlows Limit = "process_flows"
)

// gate counts the flows of one acceptor, over all reloads.
type gate struct {
	mu      sync.Mutex
	flows   int
	clients map[netip.Prefix]*tally
	swept   time.Time
	young   nursery
}

// tally is what one client has.
type tally struct {
	flows int
	left  float64 // of its rate
	at    time.Time
}

// client is the prefix that a counts as; ok is false for a unix socket.
func (l *Limits) client(a netip.AddrPort) (p netip.Prefix, ok bool) {
	ip := a.Addr().Unmap().WithZone("")
	bits := l.Prefix6
	if ip.Is4() {
		bits = l.Prefix4
	}
	p, err := ip.Prefix(bits)
	return p, err == nil && p.IsValid()
}

// enter counts a flow, or names the bound that it would exceed.
func (g *gate) enter(l *Limits) Limit {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.Flows > 0 && g.flows >= l.Flows {
		return LimitFlows
	}
	g.flows++
	return ""
}

// leave takes back what enter, and of a client enterClient, has counted.
func (g *gate) leave(t *tally) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flows--
	if t != nil {
		t.flows--
	}
}

// enterClient counts a flow of the client at a; nil is nobody's, and counts nothing.
func (g *gate) enterClient(l *Limits, a netip.AddrPort, now time.Time) (*tally, Limit) {
	if l.FlowsPerIP == 0 && l.RatePerIP == 0 {
		return nil, ""
	}
	key, ok := l.client(a)
	if !ok {
		return nil, ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweep(now)
	t := g.clients[key]
	if t == nil {
		if g.clients == nil {
			g.clients = map[netip.Prefix]*tally{}
		}
		t = &tally{left: float64(l.RatePerIP), at: now}
		g.clients[key] = t
	}
	if l.FlowsPerIP > 0 && t.flows >= l.FlowsPerIP {
		return nil, LimitFlowsPerIP
	}
	if most := float64(l.RatePerIP); most > 0 {
		t.left = min(most, t.left+most*now.Sub(t.at).Seconds())
		t.at = now
		if t.left < 1 {
			return nil, LimitRatePerIP
		}
		t.left--
	}
	t.flows++
	return t, ""
}

// sweep forgets clients that have nothing, and whose rate is whole again after a
// second: those kept are the ones of a second, and those who have a flow.
func (g *gate) sweep(now time.Time) {
	if now.Sub(g.swept) < time.Second {
		return
	}
	g.swept = now
	for k, t := range g.clients {
		if t.flows == 0 && now.Sub(t.at) >= time.Second {
			delete(g.clients, k)
		}
	}
}

// nursery has the flows whose ends are not up yet, oldest first. Who stalls is old:
// a handshake that goes on takes milliseconds.
type nursery struct {
	mu  sync.Mutex
	all list.List
}

// add takes lf in, and gives the oldest where there are more than most.
func (n *nursery) add(lf *life, most int) (place *list.Element, oldest *life) {
	n.mu.Lock()
	defer n.mu.Unlock()
	place = n.all.PushBack(lf)
	if n.all.Len() > most {
		oldest = n.all.Remove(n.all.Front()).(*life)
	}
	return place, oldest
}

// leave is for a flow whose ends are up, or that has ended.
func (n *nursery) leave(place *list.Element) {
	if place == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all.Remove(place) // which does nothing where it has gone
}

var errShed = flow.Fail(flow.HandshakeShed, "more handshakes were under way than limits.handshakes allows, and this was the oldest")

// enter holds a new flow against the bounds of its listener. One of a listener that
// reads PROXY headers is counted as its client's once that is known.
func (e *Engine) enter(l *Listener, lf *life, f *flow.Flow) bool {
	hit := lf.gate.enter(&l.Limits)
	switch {
	case hit != "":
		e.limited(l, hit)
		return false
	case e.Full != nil && e.Full():
		hit = LimitMemory
		e.limited(l, hit)
	case len(l.Preamble) == 0:
		hit = e.enterClient(l, lf, f)
	}
	if hit != "" {
		lf.gate.leave(nil)
		return false
	}
	lf.young[0] = e.grow(&lf.gate.young, l, lf, l.Limits.Handshakes)
	lf.young[1] = e.grow(&e.young, l, lf, e.Handshakes)
	return true
}

func (e *Engine) enterClient(l *Listener, lf *life, f *flow.Flow) (hit Limit) {
	if lf.client, hit = lf.gate.enterClient(&l.Limits, f.Client(), f.Start); hit != "" {
		e.limited(l, hit)
	}
	return hit
}

func (e *Engine) grow(n *nursery, l *Listener, lf *life, most int) *list.Element {
	if most == 0 {
		return nil
	}
	place, oldest := n.add(lf, most)
	if oldest != nil {
		e.limited(l, LimitHandshakes)
		oldest.kill(errShed)
	}
	return place
}

func (e *Engine) limited(l *Listener, hit Limit) {
	if e.Limited != nil {
		e.Limited(l.Name, hit)
	}
}

// grown says that the flow's ends are up.
func (e *Engine) grown(lf *life) {
	lf.gate.young.leave(lf.young[0])
	e.young.leave(lf.young[1])
	lf.young = [2]*list.Element{}
}

// leave takes back what the flow counted for.
func (e *Engine) leave(lf *life) {
	e.grown(lf)
	lf.gate.leave(lf.client)
}
