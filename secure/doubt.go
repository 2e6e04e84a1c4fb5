package secure

import (
	"encoding/binary"
	"sync"
	"time"

	"sallyport/wire"
)

// Until its handshake is finished, anybody who writes the client's address and port
// on datagrams can speak in its name. What can be told from the client's own by its
// form, or by what the client does next, ends no handshake.

// alertGrace is how long after an alert in clear a client has to be silent to be
// believed. One that is still there has sent something by then: on a lost flight
// stacks wait a second at first.
const alertGrace = 2 * time.Second

// rumour is a fatal alert in clear: who has sent one sends nothing after it.
type rumour struct {
	mu       sync.Mutex
	alert    wire.Alert
	heard    bool
	believed bool
	timer    *time.Timer
}

// hear calls believe once the client has been silent for long enough.
func (r *rumour) hear(a wire.Alert, believe func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		return
	}
	r.alert, r.heard = a, true
	r.timer = time.AfterFunc(alertGrace, func() {
		r.mu.Lock()
		still := r.timer != nil
		r.believed = still
		r.mu.Unlock()
		if still {
			believe()
		}
	})
}

// deny says that the client goes on, or that nobody asks any more.
func (r *rumour) deny() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil && !r.believed {
		r.timer.Stop()
		r.timer = nil
	}
}

// last is the alert that was heard, and whether it was believed.
func (r *rumour) last() (a wire.Alert, heard, believed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alert, r.heard, r.believed
}

const (
	// mostHandshake is what a peer may send in clear in its handshake: a chain of
	// 16 KiB and three times more of it, if it gets lost. More is lost.
	mostHandshake = 64 << 10
	// mostEarly is the same of records that are encrypted, which the engine keeps until
	// it can read them. Those of no more than smallEarly bytes are not counted, Finished
	// among them: it keeps a hundred at most.
	mostEarly  = 32 << 10
	smallEarly = 256
	// mostMessages is above the number of any message of a handshake.
	mostMessages = 16
)

// early says whether the engine is to see a record that came before the handshake
// is finished; server says that we are the server.
func (d *datagrams) early(r *wire.Record, server bool) bool {
	switch {
	case r.Epoch == 1 && len(r.Raw) <= smallEarly:
	case r.Epoch == 1:
		if d.leftEarly -= len(r.Raw); d.leftEarly < 0 {
			return false
		}
	case r.Type == wire.TypeHandshake:
		if !plausible(r.Body, server) {
			return false
		}
		if d.left -= len(r.Raw); d.left < 0 {
			d.spent.Store(true)
			return false
		}
	case r.Type == typeChangeCipherSpec && len(r.Body) == 1 && r.Body[0] == 1:
	case r.Type == wire.TypeAlert && len(r.Body) == 2:
		if !server {
			return true
		}
		if fatal := r.Body[0] == 2; fatal || r.Body[1] == uint8(wire.AlertCloseNotify) {
			d.rumour.hear(wire.Alert(r.Body[1]), d.believe)
		}
		return false
	default:
		return false
	}
	if server {
		d.rumour.deny()
	}
	return true
}

// plausible says whether the first fragment in body can be one of the peer's
// handshake in clear (RFC 6347, section 4.2.2).
func plausible(body []byte, server bool) bool {
	if len(body) < 12 {
		return false
	}
	number := func(at int) int { return int(body[at])<<16 | int(binary.BigEndian.Uint16(body[at+1:])) }
	length, offset, size := number(1), number(6), number(9)
	if length > mostHandshake || offset+size > length || 12+size > len(body) || binary.BigEndian.Uint16(body[4:]) >= mostMessages {
		return false
	}
	if !server {
		return true
	}
	switch body[0] {
	case typeClientHello, typeCertificate, typeCertificateVerify, typeClientKeyExchange:
		return true
	}
	return false
}

// believe ends the handshake by the alert; see ReadFrom.
func (d *datagrams) believe() { d.Conn.SetReadDeadline(time.Unix(1, 0)) }
