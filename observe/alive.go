package observe

import (
	"crypto/tls"
	"sync"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// Tally is the [flow.Observer] that knows the flows now alive and counts those that
// were. Its labels are words of the configuration and of ours: what a client sends
// is never one. It is parted, so that who reads all of it holds up few flows, and
// those for microseconds.
type Tally struct {
	parts  [tallyParts]tallyPart
	stages stageTimes

	verdicts verdictTimes
}

const tallyParts = 16

type tallyPart struct {
	mu         sync.Mutex
	live       map[uint64]*flow.Flow
	flows      map[flowKey]uint64
	bytes      map[bytesKey]*[2]int64 // of flows that have ended
	handshakes map[handshakeKey]uint64
	alerts     map[alertKey]uint64
	refusals   map[refusalKey]uint64
}

type (
	flowKey struct {
		listener, route string
		reason          flow.Reason
	}
	bytesKey     struct{ listener, route string }
	handshakeKey struct {
		side           string
		version, group uint16
		resumed        bool
	}
	alertKey struct {
		side string
		sent bool
		code uint8
	}
	refusalKey struct{ side, verifier, reason string }
)

// Sides of a handshake.
const (
	sideInbound  = "inbound"
	sideOutbound = "outbound"
)

// NewTally counts from nothing.
func NewTally() *Tally {
	t := &Tally{stages: newStageTimes(), verdicts: newVerdictTimes()}
	for i := range t.parts {
		p := &t.parts[i]
		p.live = map[uint64]*flow.Flow{}
		p.flows = map[flowKey]uint64{}
		p.bytes = map[bytesKey]*[2]int64{}
		p.handshakes = map[handshakeKey]uint64{}
		p.alerts = map[alertKey]uint64{}
		p.refusals = map[refusalKey]uint64{}
	}
	return t
}

func (t *Tally) part(f *flow.Flow) *tallyPart { return &t.parts[f.ID%tallyParts] }

// Begin implements [flow.Observer].
func (t *Tally) Begin(f *flow.Flow) {
	p := t.part(f)
	p.mu.Lock()
	p.live[f.ID] = f
	p.mu.Unlock()
}

// End implements [flow.Observer].
func (t *Tally) End(f *flow.Flow, e *flow.Error) {
	if t.part(f).end(f, e) {
		t.stages.observe(f)
		t.verdicts.observe(f, e)
	}
}

// end says whether the flow was alive.
func (p *tallyPart) end(f *flow.Flow, e *flow.Error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, alive := p.live[f.ID]; !alive {
		return false // another observer has panicked, and all are told again
	}
	delete(p.live, f.ID)
	key := flowKey{listener: f.Origin.Listener, reason: flow.OK}
	if f.Decision != nil {
		key.route = f.Decision.Route
	}
	if e != nil {
		key.reason = e.Reason
	}
	p.flows[key]++
	if f.Decision != nil {
		all := p.bytes[bytesKey{key.listener, key.route}]
		if all == nil {
			all = new([2]int64)
			p.bytes[bytesKey{key.listener, key.route}] = all
		}
		for d := range all {
			all[d] += f.Sent[d]
		}
	}
	for i := range f.Inbound {
		p.handshakes[keyOf(sideInbound, &f.Inbound[i])]++
	}
	for i := range f.Outbound {
		p.handshakes[keyOf(sideOutbound, &f.Outbound[i])]++
	}
	if e != nil && e.Alerts != (flow.Alerts{}) {
		p.alert(e)
	}
	if e != nil && e.Refusal != nil {
		p.refusals[refusalKey{sideOf(e.Refusal), e.Refusal.Verifier, e.Refusal.Reason}]++
	}
	return true
}

func keyOf(side string, s *flow.Session) handshakeKey {
	return handshakeKey{side, s.Version, s.Group, s.Resumed}
}

// alert counts those of e. What we send in clear, clients get alone.
func (p *tallyPart) alert(e *flow.Error) {
	if a := e.Alerts.Received; a != 0 {
		side := sideInbound
		if e.Fault == flow.FaultServer {
			side = sideOutbound
		}
		p.alerts[alertKey{side, false, a}]++
	}
	if a := e.Alerts.Sent; a != 0 {
		p.alerts[alertKey{sideInbound, true, a}]++
	}
}

// Alive is a flow as it was when somebody looked.
type Alive struct {
	ID       uint64    `json:"id"`
	Stage    string    `json:"stage"`
	Start    time.Time `json:"start"`
	Listener string    `json:"listener"`
	Route    string    `json:"route,omitempty"`
	Pattern  string    `json:"pattern,omitempty"`
	Client   string    `json:"client"`
	Server   string    `json:"server,omitempty"`
	SNI      string    `json:"sni,omitempty"`
	Version  string    `json:"version,omitempty"`
	Up       int64     `json:"up"`
	Down     int64     `json:"down"`
}

// Alive gives at most n of the flows that are alive, in no order, and how many
// there are.
func (t *Tally) Alive(n int) (list []Alive, all int) {
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		all += len(p.live)
		for _, f := range p.live {
			if len(list) >= n {
				break
			}
			list = append(list, look(f))
		}
		p.mu.Unlock()
	}
	return list, all
}

// look reads of f what its stage says that nobody writes any more.
func look(f *flow.Flow) Alive {
	a := Alive{ID: f.ID, Start: f.Start, Listener: f.Origin.Listener, Client: addrName(f.Origin.Client)}
	if f.Progress == nil {
		return a
	}
	stage := f.Progress.Stage()
	a.Stage, a.Up, a.Down = stage.String(), f.Progress.Bytes(flow.Up), f.Progress.Bytes(flow.Down)
	if stage > flow.StagePreamble {
		a.Client = clientName(f)
	}
	if stage > flow.StagePeek && f.Hello != nil {
		a.SNI = cut(f.Hello.SNI, longest)
	}
	if stage > flow.StageDecide {
		a.Route, a.Pattern = f.Decision.Route, f.Decision.Pattern
	}
	if stage >= flow.StageRelay {
		a.Server = f.Dialled.Addr
		if n := len(f.Inbound); n > 0 {
			a.Version = wire.VersionName(f.Inbound[n-1].Version)
		}
	}
	return a
}

// total is what all parts have counted, with the bytes of flows that are alive.
type total struct {
	open       map[string]int // by listener
	flows      map[flowKey]uint64
	bytes      map[bytesKey][2]int64
	handshakes map[handshakeKey]uint64
	alerts     map[alertKey]uint64
	refusals   map[refusalKey]uint64
}

func (t *Tally) total() total {
	all := total{
		map[string]int{}, map[flowKey]uint64{}, map[bytesKey][2]int64{}, map[handshakeKey]uint64{}, map[alertKey]uint64{}, map[refusalKey]uint64{},
	}
	for i := range t.parts {
		t.parts[i].addTo(&all)
	}
	return all
}

// addTo holds mu all the while: a flow is alive or has ended, never both, so that
// no sum ever falls.
func (p *tallyPart) addTo(all *total) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k, n := range p.flows {
		all.flows[k] += n
	}
	for k, n := range p.handshakes {
		all.handshakes[k] += n
	}
	for k, n := range p.alerts {
		all.alerts[k] += n
	}
	for k, n := range p.refusals {
		all.refusals[k] += n
	}
	add := func(k bytesKey, up, down int64) {
		sum := all.bytes[k]
		all.bytes[k] = [2]int64{flow.Up: sum[flow.Up] + up, flow.Down: sum[flow.Down] + down}
	}
	for k, n := range p.bytes {
		add(k, n[flow.Up], n[flow.Down])
	}
	for _, f := range p.live {
		all.open[f.Origin.Listener]++
		if f.Progress != nil && f.Progress.Stage() > flow.StageDecide {
			add(bytesKey{f.Origin.Listener, f.Decision.Route}, f.Progress.Bytes(flow.Up), f.Progress.Bytes(flow.Down))
		}
	}
}

// groupName is the key exchange's name; empty where none is known.
func groupName(id uint16) string {
	if id == 0 {
		return ""
	}
	return tls.CurveID(id).String()
}

// Observers tells each of several, in their order.
type Observers []flow.Observer

// Begin implements [flow.Observer].
func (o Observers) Begin(f *flow.Flow) {
	for _, one := range o {
		one.Begin(f)
	}
}

// End implements [flow.Observer].
func (o Observers) End(f *flow.Flow, e *flow.Error) {
	for _, one := range o {
		one.End(f, e)
	}
}

// Sum is what all listeners have together.
type Sum struct {
	Open     int
	Ended    uint64
	Up, Down int64
}

// Sum adds up flows alive and ended.
func (t *Tally) Sum() (s Sum) {
	all := t.total()
	for _, n := range all.open {
		s.Open += n
	}
	for _, n := range all.flows {
		s.Ended += n
	}
	for _, n := range all.bytes {
		s.Up += n[flow.Up]
		s.Down += n[flow.Down]
	}
	return s
}
