package testnet

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// Weather is what a [LossyRelay] does to datagrams. The zero value passes all.
type Weather struct {
	Loss      int // per cent that are lost
	Duplicate int // per cent that arrive twice
	Reorder   int // per cent that are overtaken by one to three others
	MTU       int // a datagram with a longer payload, in bytes, is lost; 0 is none
	Seed      uint64
}

// Way is a direction through a [LossyRelay].
type Way int

const (
	ToServer Way = iota
	ToClient
)

// Passage is what a [LossyRelay] has done in one direction.
type Passage struct{ Seen, Lost, TooLarge, Duplicated, Reordered, Sent int }

// LossyRelay stands between UDP clients and one server on the IPv4 loopback, for
// kernels that have no netem. Towards the server each client has a socket, and so
// an address, of its own. The fate of the n-th datagram of a client in one
// direction depends on the seed, on which client it is by order of appearance, and
// on n alone.
type LossyRelay struct {
	t     testing.TB
	front *net.UDPConn
	to    netip.AddrPort
	work  sync.WaitGroup

	mu      sync.Mutex
	weather Weather
	through func(client int, w Way, n int, p []byte) [][]byte
	paths   map[netip.AddrPort]*path
	order   []*path
	passed  [2]Passage
	closed  bool
}

// path is one client's.
type path struct {
	number int
	client netip.AddrPort
	up     *net.UDPConn
	ways   [2]way
}

type way struct {
	n      int
	random uint64 // state of a splitmix64
	held   []*held
}

// held is a datagram that after others have gone, or holdFor, goes as well.
type held struct {
	p     []byte
	after int
	timer *time.Timer
}

// holdFor frees the last datagram of a flight, which nothing overtakes.
const holdFor = 30 * time.Millisecond

// Relay passes datagrams between its own address and the server at to, until the
// test's end.
func Relay(t testing.TB, to netip.AddrPort, w Weather) *LossyRelay {
	t.Helper()
	front, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	r := &LossyRelay{t: t, front: front, to: to, weather: w, paths: map[netip.AddrPort]*path{}}
	_ = front.SetReadBuffer(4 << 20) // as much as the system allows
	r.work.Go(r.listen)
	t.Cleanup(r.Close)
	return r
}

// Addr is where clients send to.
func (r *LossyRelay) Addr() netip.AddrPort { return r.front.LocalAddr().(*net.UDPAddr).AddrPort() }

// Change has what follows fare by w. Its seed is not looked at any more.
func (r *LossyRelay) Change(w Weather) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weather = w
}

// Through has f see each datagram before the weather does: the n-th of its client,
// in one direction, counted from 0. What f gives goes on in its place. It is called
// by one goroutine at a time, and may keep p, but not call r.
func (r *LossyRelay) Through(f func(client int, w Way, n int, p []byte) [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.through = f
}

// Passed says what was done in one direction, for all clients.
func (r *LossyRelay) Passed(w Way) Passage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed[w]
}

// Rebind gives every client another port towards the server, as a NAT does that has
// forgotten them. What the server sends to the old ones is lost.
func (r *LossyRelay) Rebind() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.order {
		old := p.up
		if err := r.open(p); err != nil {
			r.t.Error(err)
			return
		}
		old.Close()
	}
}

// Upstream is the address by which the server knows a client, by order of appearance.
func (r *LossyRelay) Upstream(client int) netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.order[client].up.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Inject sends p to the server from a client's address, or to a client. The weather
// does not touch it, nor is it counted.
func (r *LossyRelay) Inject(client int, w Way, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.write(r.order[client], w, p)
}

// Close ends the relay. What it still held back is lost.
func (r *LossyRelay) Close() {
	r.mu.Lock()
	r.closed = true
	r.front.Close()
	for _, p := range r.order {
		p.up.Close()
		for w := range p.ways {
			for _, h := range p.ways[w].held {
				h.timer.Stop()
			}
			p.ways[w].held = nil
		}
	}
	r.mu.Unlock()
	r.work.Wait()
}

// open gives p a new socket towards the server; mu is held.
func (r *LossyRelay) open(p *path) error {
	up, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.to))
	if err != nil {
		return err
	}
	_ = up.SetReadBuffer(4 << 20)
	p.up = up
	r.work.Go(func() { r.answer(p, up) })
	return nil
}

func (r *LossyRelay) listen() {
	b := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			r.arrived(from, b[:n])
		}
	}
}

func (r *LossyRelay) arrived(from netip.AddrPort, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	p := r.paths[from]
	if p == nil {
		p = &path{number: len(r.order), client: from}
		if err := r.open(p); err != nil {
			r.t.Error(err)
			return
		}
		for w := range p.ways {
			p.ways[w].random = r.weather.Seed<<20 + uint64(2*p.number+w)
		}
		r.paths[from], r.order = p, append(r.order, p)
	}
	r.pass(p, ToServer, b)
}

func (r *LossyRelay) answer(p *path, up *net.UDPConn) {
	b := make([]byte, 65536)
	for {
		n, err := up.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error, which ends with the one datagram that it is about
		}
		r.mu.Lock()
		if !r.closed && p.up == up {
			r.pass(p, ToClient, b[:n])
		}
		r.mu.Unlock()
	}
}

// pass lets one datagram meet its fate; mu is held.
func (r *LossyRelay) pass(p *path, w Way, b []byte) {
	list := [][]byte{slices.Clone(b)}
	if r.through != nil {
		list = r.through(p.number, w, p.ways[w].n, list[0])
	}
	p.ways[w].n++
	for _, b := range list {
		r.fare(p, w, b)
	}
}

func (r *LossyRelay) fare(p *path, w Way, b []byte) {
	way, count, weather := &p.ways[w], &r.passed[w], r.weather
	count.Seen++
	// All are drawn for every datagram, so that one setting does not move the others'.
	lost, twice, late, by := way.draw(100) < weather.Loss, way.draw(100) < weather.Duplicate, way.draw(100) < weather.Reorder, 1+way.draw(3)
	switch {
	case weather.MTU > 0 && len(b) > weather.MTU:
		count.TooLarge++
		return
	case lost:
		count.Lost++
		return
	case late:
		count.Reordered++
		r.hold(p, w, &held{p: b, after: by})
	default:
		r.send(p, w, b)
	}
	if twice {
		count.Duplicated++
		r.send(p, w, b)
	}
}

// draw gives a number below n.
func (w *way) draw(n int) int {
	w.random += 0x9e3779b97f4a7c15
	z := w.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) % uint64(n))
}

func (r *LossyRelay) hold(p *path, w Way, h *held) {
	way := &p.ways[w]
	way.held = append(way.held, h)
	h.timer = time.AfterFunc(holdFor, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if i := slices.Index(way.held, h); i >= 0 {
			way.held = slices.Delete(way.held, i, i+1)
			r.write(p, w, h.p)
			r.passed[w].Sent++
		}
	})
}

// send sends b, and those held back that have been overtaken often enough.
func (r *LossyRelay) send(p *path, w Way, b []byte) {
	r.write(p, w, b)
	r.passed[w].Sent++
	way := &p.ways[w]
	var due []*held
	way.held = slices.DeleteFunc(way.held, func(h *held) bool {
		h.after--
		if h.after <= 0 {
			h.timer.Stop()
			due = append(due, h)
		}
		return h.after <= 0
	})
	for _, h := range due {
		r.write(p, w, h.p)
		r.passed[w].Sent++
	}
}

// write may fail where nobody listens; to a sender that is loss like any other.
func (r *LossyRelay) write(p *path, w Way, b []byte) {
	if w == ToServer {
		_, _ = p.up.Write(b)
		return
	}
	_, _ = r.front.WriteToUDPAddrPort(b, p.client)
}
