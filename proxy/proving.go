package proxy

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// proving is the client's end of an association that is passed on undecrypted, whose
// cookie exchange is the server's (RFC 6347, section 4.2.1): a cookie of ours, in a
// message of ours, would leave the two ends with different transcripts.
//
// Until the client has shown the server's cookie, it may be anybody who writes
// another's address on datagrams. So it gets HelloVerifyRequests alone, and of them no
// more bytes than its hellos had; the server gets those hellos alone; and there is
// no record of it.
type proving struct {
	*packetReplay
	proved func() bool // told of the server's cookie; false: there is no room for the flow yet
	refuse func(error) // ends the flow
	timer  *time.Timer

	done   atomic.Bool
	mu     sync.Mutex
	cookie []byte
	credit int // bytes that the client may be sent
}

func prove(c *packetReplay, within time.Duration, proved func() bool, refuse func(error)) *proving {
	p := &proving{packetReplay: c, proved: proved, refuse: refuse}
	p.timer = time.AfterFunc(within, func() {
		if !p.done.Load() {
			refuse(flow.Fail(flow.ClientTimeout, "the client did not come back with the server's cookie in time"))
		}
	})
	return p
}

// ReadUnit gives the server hellos alone, until the client is proved. It holds no
// buffer over what it throws away.
func (p *proving) ReadUnit(lease func() []byte) ([]byte, error) {
	for !p.done.Load() {
		unit, err := p.stranger(lease)
		if unit != nil || err != nil {
			return unit, err
		}
	}
	return p.packetReplay.ReadUnit(lease)
}

// stranger reads one datagram, and gives it if the server is to have it.
func (p *proving) stranger(lease func() []byte) ([]byte, error) {
	var own buffer
	defer own.giveBack()
	unit, err := p.packetReplay.ReadUnit(own.whole)
	if err != nil || !p.hello(unit) {
		return nil, err
	}
	room := lease()
	return room[:copy(room, unit)], nil
}

// hello says whether the server is given unit.
func (p *proving) hello(unit []byte) bool {
	head, err := wire.ReadHelloHead(unit)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.credit += len(unit)
	if p.cookie != nil && bytes.Equal(head.Cookie, p.cookie) {
		if !p.proved() {
			return false // the client will say it again
		}
		p.done.Store(true)
		p.timer.Stop()
		p.packets.Established()
	}
	return true
}

func (p *proving) Write(b []byte) (int, error) {
	if p.done.Load() {
		return p.packetReplay.Write(b)
	}
	cookie, ok := wire.ReadHelloVerifyRequest(b)
	if !ok {
		p.refuse(flow.Fail(flow.ServerNoCookie, "%s; turn on its cookie exchange (RFC 6347, section 4.2.1), or end DTLS here", flow.ServerNoCookie.Meaning()))
		return len(b), nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) > p.credit || len(cookie) == 0 {
		return len(b), nil
	}
	p.credit -= len(b)
	p.cookie = bytes.Clone(cookie)
	return p.packetReplay.Write(b)
}

// WriteUnit implements [flow.UnitWriter].
func (p *proving) WriteUnit(b []byte, _ func()) (int, error) { return p.Write(b) }

func (p *proving) Close() error {
	p.timer.Stop()
	return p.packetReplay.Close()
}

func unproven(c flow.Conn) bool {
	u, ok := c.(flow.Unproven)
	return ok && u.Unproven()
}

// seldom lets one thing a second through.
type seldom struct{ last atomic.Int64 }

func (s *seldom) due(now time.Time) bool {
	last := s.last.Load()
	return now.UnixNano()-last >= int64(time.Second) && s.last.CompareAndSwap(last, now.UnixNano())
}
