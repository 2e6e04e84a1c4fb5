package secure

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"sallyport/flow"
	"sallyport/record"
)

// secrets are a connection's traffic secrets, as crypto/tls tells them: by the
// lines of its key log. Each connection has a writer of its own. They are not
// found by the client's random, which a stranger chooses, and which with ECH is
// another than the one that came in clear.
type secrets struct {
	next           io.Writer // unsafe.keylog; nil is none
	client, server []byte
}

// Write takes one line: a label, the client's random and a secret.
func (s *secrets) Write(line []byte) (int, error) {
	if label, rest, ok := bytes.Cut(line, []byte(" ")); ok {
		_, text, _ := bytes.Cut(rest, []byte(" "))
		var err error
		switch string(label) {
		case "CLIENT_TRAFFIC_SECRET_0":
			s.client, err = hex.AppendDecode(nil, bytes.TrimSpace(text))
		case "SERVER_TRAFFIC_SECRET_0":
			s.server, err = hex.AppendDecode(nil, bytes.TrimSpace(text))
		}
		if err != nil {
			return 0, fmt.Errorf("a line of the key log: %w", err)
		}
	}
	if s.next == nil {
		return len(line), nil
	}
	return s.next.Write(line)
}

// known says whether crypto/tls may seal with one of them. It tells them before.
func (s *secrets) known() bool { return s.client != nil || s.server != nil }

func (s *secrets) wipe() {
	clear(s.client)
	clear(s.server)
}

// under puts the connection below crypto/tls, and has cfg tell its secrets where
// the connection is to be taken over.
func (h *handshake) under(c flow.Conn, cfg *tls.Config, p *Common) *under {
	u := &under{Conn: c, units: flow.Units(c)}
	if p.Record && p.Max >= tls.VersionTLS13 {
		u.keys = &secrets{next: p.KeyLog}
		cfg.KeyLogWriter = u.keys
	}
	return u
}

// carryOn gives the connection after its handshake. Under TLS 1.3 a record layer
// of ours takes over from crypto/tls, which has opened no record beyond the
// handshake, since under hands it one at a time.
func (h *handshake) carryOn(t *tls.Conn, u *under, cs tls.ConnectionState, lenient bool) (flow.Conn, error) {
	if u.keys == nil || cs.Version != tls.VersionTLS13 {
		u.keys = nil
		return &conn{tls: t, under: u, role: h.role, lenient: lenient}, nil
	}
	keys := u.keys
	defer keys.wipe()
	p := record.Params{
		Suite: cs.CipherSuite, Client: h.role == &outbound, Lenient: lenient, Explain: h.role.relayError,
		Read: keys.client, Write: keys.server, Pending: bytes.Clone(u.in),
	}
	if p.Client {
		p.Read, p.Write = p.Write, p.Read
	}
	p.Flight = u.takeOver()
	if p.Client && h.resumes {
		p.Tickets = func(record []byte) bool { return u.learn(t, record) }
	}
	c, err := record.New(u.Conn, p)
	if err != nil {
		return nil, fmt.Errorf("taking over from crypto/tls: %w", err)
	}
	return c, nil
}

var errTaken = errors.New("crypto/tls writes after its connection was taken over")

// takeOver leaves crypto/tls neither the socket nor a way to write, and gives its
// last flight.
func (u *under) takeOver() []byte {
	u.giveBack()
	u.wmu.Lock()
	defer u.wmu.Unlock()
	flight := u.flight
	u.flight, u.keys, u.taken = nil, nil, true
	return flight
}

// learn has crypto/tls read one record with session tickets, for its cache, and
// says whether it may be given another.
func (u *under) learn(t *tls.Conn, record []byte) bool {
	u.in, u.ready = record, true
	_, err := t.Read(make([]byte, 1))
	return errors.Is(err, errNotHere) && len(u.in) == 0
}
