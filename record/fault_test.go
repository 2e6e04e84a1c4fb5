package record

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

var ticket = []byte{4, 0, 0, 16, 0, 0, 1, 0, 1, 2, 3, 4, 0, 0, 3, 't', 'i', 'x', 0, 0}

// Everything a peer may do wrong has its alert, and what came before it is read.
func TestFaults(t *testing.T) {
	padded := func(x *pair, inner ...byte) {
		body := len(inner) + tagSize
		head := []byte{23, 3, 3, byte(body >> 8), byte(body)}
		aead := x.write.cipher()
		x.raw(aead.Seal(head, x.write.perRecord(), inner, head))
	}
	for name, c := range map[string]struct {
		client bool
		do     func(x *pair)
		want   wire.Alert
	}{
		"a MAC":                       {do: func(x *pair) { r := x.write.seal(nil, 23, []byte("a")); r[len(r)-1] ^= 1; x.raw(r) }, want: wire.AlertBadRecordMAC},
		"a header that lies":          {do: func(x *pair) { r := x.write.seal(nil, 23, []byte("ab")); r[4]--; x.raw(r[:len(r)-1]) }, want: wire.AlertBadRecordMAC},
		"a record twice":              {do: func(x *pair) { r := x.write.seal(nil, 23, nil); x.raw(slices.Concat(r, r)) }, want: wire.AlertBadRecordMAC},
		"too short":                   {do: func(x *pair) { x.raw([]byte{23, 3, 3, 0, 16}) }, want: wire.AlertBadRecordMAC},
		"too long":                    {do: func(x *pair) { x.raw([]byte{23, 3, 3, 0x41, 1}) }, want: wire.AlertRecordOverflow},
		"too much plaintext":          {do: func(x *pair) { padded(x, append(make([]byte, maxInner), 23)...) }, want: wire.AlertRecordOverflow},
		"too much padding":            {do: func(x *pair) { padded(x, append([]byte{'a', 23}, make([]byte, maxInner)...)...) }, want: wire.AlertRecordOverflow},
		"padding alone":               {do: func(x *pair) { padded(x, make([]byte, 2000)...) }, want: wire.AlertUnexpectedMessage},
		"a version":                   {do: func(x *pair) { x.raw([]byte{23, 3, 4, 0, 99}) }, want: wire.AlertProtocolVersion},
		"ChangeCipherSpec":            {do: func(x *pair) { x.raw([]byte{20, 3, 3, 0, 1, 1}) }, want: wire.AlertUnexpectedMessage},
		"an alert in clear":           {do: func(x *pair) { x.raw([]byte{21, 3, 3, 0, 2, 2, 40}) }, want: wire.AlertUnexpectedMessage},
		"ChangeCipherSpec, sealed":    {do: func(x *pair) { x.send(20, 1) }, want: wire.AlertUnexpectedMessage},
		"an unknown type":             {do: func(x *pair) { x.send(99, make([]byte, 3000)...) }, want: wire.AlertUnexpectedMessage},
		"an empty alert":              {do: func(x *pair) { x.send(typeAlert) }, want: wire.AlertUnexpectedMessage},
		"an alert of one byte":        {do: func(x *pair) { x.send(typeAlert, 2) }, want: wire.AlertUnexpectedMessage},
		"two alerts":                  {do: func(x *pair) { x.send(typeAlert, 1, 0, 1, 0) }, want: wire.AlertUnexpectedMessage},
		"an empty handshake record":   {do: func(x *pair) { x.send(typeHandshake) }, want: wire.AlertUnexpectedMessage},
		"a ClientHello":               {do: func(x *pair) { x.send(typeHandshake, 1) }, want: wire.AlertUnexpectedMessage},
		"a ticket from a client":      {do: func(x *pair) { x.send(typeHandshake, ticket...) }, want: wire.AlertUnexpectedMessage},
		"CertificateRequest":          {client: true, do: func(x *pair) { x.send(typeHandshake, 13, 0, 0, 3, 0, 0, 0) }, want: wire.AlertUnexpectedMessage},
		"a ticket cut within":         {client: true, do: func(x *pair) { r := bytes.Clone(ticket); r[14] = 9; x.send(typeHandshake, r...) }, want: wire.AlertDecodeError},
		"a huge ticket":               {client: true, do: func(x *pair) { x.send(typeHandshake, 4, 1, 0, 1) }, want: wire.AlertDecodeError},
		"tickets without end":         {client: true, do: func(x *pair) { x.send(typeHandshake, bytes.Repeat(ticket, 17)...) }, want: wire.AlertUnexpectedMessage},
		"KeyUpdate of no length":      {do: func(x *pair) { x.send(typeHandshake, 24, 0, 0, 0) }, want: wire.AlertDecodeError},
		"KeyUpdate of two":            {do: func(x *pair) { x.send(typeHandshake, 24, 0, 0, 2, 0, 0) }, want: wire.AlertDecodeError},
		"KeyUpdate with request 2":    {do: func(x *pair) { x.send(typeHandshake, 24, 0, 0, 1, 2) }, want: wire.AlertIllegalParameter},
		"KeyUpdate and more":          {do: func(x *pair) { x.send(typeHandshake, 24, 0, 0, 1, 0, 24) }, want: wire.AlertUnexpectedMessage},
		"data amid a message":         {do: func(x *pair) { x.send(typeHandshake, 24, 0); x.send(23, 'a') }, want: wire.AlertUnexpectedMessage},
		"an alert amid a message":     {do: func(x *pair) { x.send(typeHandshake, 24, 0); x.send(typeAlert, 1, 0) }, want: wire.AlertUnexpectedMessage},
		"the last sequence number":    {do: func(x *pair) { x.conn.read.seq, x.write.seq = 1<<64-1, 1<<64-1; x.send(23, 'a') }, want: wire.AlertUnexpectedMessage},
		"empty records without end":   {do: func(x *pair) { repeat(17, func() { x.send(23) }) }, want: wire.AlertUnexpectedMessage},
		"user_canceled without end":   {do: func(x *pair) { repeat(17, func() { x.send(typeAlert, 1, 90) }) }, want: wire.AlertUnexpectedMessage},
		"key updates without end":     {do: func(x *pair) { repeat(17, x.update) }, want: wire.AlertUnexpectedMessage},
		"the old key after KeyUpdate": {do: func(x *pair) { x.send(typeHandshake, 24, 0, 0, 1, 0); x.send(23, 'a') }, want: wire.AlertBadRecordMAC},
	} {
		t.Run(name, func(t *testing.T) {
			x := newPair(t, 0x1301, func(p *Params) { p.Client = c.client })
			if name != "the last sequence number" {
				x.send(23, []byte("before")...)
				x.wantUnit("before")
			}
			c.do(x)
			x.wantFault(c.want)
			if x.conn.held != nil || x.conn.in != nil {
				t.Error("a buffer is held after the end")
			}
		})
	}
}

func repeat(n int, do func()) {
	for range n {
		do()
	}
}

// update sends a KeyUpdate as the peer, which asks for none.
func (x *pair) update() {
	x.send(typeHandshake, 24, 0, 0, 1, 0)
	x.write.update()
}

// What was opened ahead of a fault, in the same read, is delivered first.
func TestFaultWaitsForItsTurn(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	big := bytes.Repeat([]byte("b"), 5000)
	r := x.write.seal(x.write.seal(nil, 23, big), 23, []byte("small"))
	x.raw(append(r, 99, 3, 3, 0, 1))
	x.wantUnit(string(big) + "small")
	x.wantFault(wire.AlertUnexpectedMessage)
}

// As many useless records as may be, again and again with data in between.
func TestUselessIsBounded(t *testing.T) {
	x := newPair(t, 0x1301, func(p *Params) { p.Client = true })
	for range 3 {
		repeat(4, func() { x.send(23); x.send(typeAlert, 1, 90); x.update(); x.send(typeHandshake, ticket...) })
		x.send(23, 'a')
		x.wantUnit("a")
	}
}

func TestAlerts(t *testing.T) {
	for alert, want := range map[byte]error{0: io.EOF, 40: RemoteAlert(40), 20: RemoteAlert(20), 100: RemoteAlert(100), 0xff: RemoteAlert(0xff)} {
		for _, level := range []byte{1, 2} {
			x := newPair(t, 0x1301, nil)
			x.raw(x.write.seal(x.write.seal(x.write.seal(nil, 23, []byte("last")), typeAlert, []byte{level, alert}), 23, []byte("more")))
			x.wantUnit("last")
			for range 2 {
				if u, err := x.unit(); len(u) > 0 || !errors.Is(err, want) {
					t.Errorf("alert %d gives %q, %v", alert, u, err)
				}
			}
		}
	}
}

func TestExplain(t *testing.T) {
	explained := errors.New("explained")
	for _, c := range []struct {
		do   func(x *pair)
		want error
	}{
		{func(x *pair) { x.send(typeAlert, 2, 40) }, explained},
		{func(x *pair) { x.send(99, 1) }, explained},
		{func(x *pair) { flow.Abort(x.peer) }, explained},
		{func(x *pair) { x.send(typeAlert, 1, 0) }, io.EOF},
		{func(x *pair) { x.peer.CloseWrite() }, flow.ErrTruncated},
	} {
		x := newPair(t, 0x1301, func(p *Params) { p.Explain = func(error) error { return explained } })
		c.do(x)
		if _, err := x.unit(); err != c.want {
			t.Errorf("got %v, want %v", err, c.want)
		}
	}
}

// A stream cut at each byte of its last record is truncated; only where the peer
// is trusted so far has it ended.
func TestTruncation(t *testing.T) {
	for _, lenient := range []bool{false, true} {
		for cut := range overhead + 3 {
			x := newPair(t, 0x1301, func(p *Params) { p.Lenient = lenient })
			x.send(23, []byte("whole")...)
			x.wantUnit("whole")
			if cut > 0 {
				x.raw(x.write.seal(nil, 23, []byte("cut"))[:cut])
			}
			x.peer.CloseWrite()
			want := flow.ErrTruncated
			if lenient {
				want = io.EOF
			}
			for range 2 {
				if u, err := x.unit(); len(u) > 0 || err != want {
					t.Errorf("cut after %d bytes: %q, %v", cut, u, err)
				}
			}
			if x.conn.held != nil {
				t.Error("a buffer is held after the end")
			}
		}
	}
}

// A deadline passes, and reading goes on amid the record.
func TestDeadlinePasses(t *testing.T) {
	x := newPair(t, 0x1303, nil)
	r := x.write.seal(nil, 23, bytes.Repeat([]byte("r"), 9000))
	x.raw(r[:5000])
	x.conn.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	_, err := x.unit()
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("got %v", err)
	}
	x.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	x.raw(r[5000:])
	x.wantUnit(string(bytes.Repeat([]byte("r"), 9000)))
}

// A fatal alert does not wait for a peer that takes nothing, and a write that
// does is not cut short by it.
func TestFaultAmidAWriteThatWaits(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	wrote := make(chan error, 1)
	go func() {
		_, err := x.conn.Write(make([]byte, 32<<20))
		wrote <- err
	}()
	for x.conn.writing.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond) // until the buffers of both sockets are full
	x.send(99, 1)
	start := time.Now()
	if _, err := x.unit(); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	total, last := 0, byte(0)
	for total < 32<<20 {
		typ, b := x.receive()
		total, last = total+len(b), typ
		if typ != 23 {
			break
		}
	}
	if err := <-wrote; err != nil || last != 23 {
		t.Errorf("%d bytes, then type %d: %v", total, last, err)
	}
	if typ, b := x.receive(); typ != typeAlert || b[1] != byte(wire.AlertUnexpectedMessage) {
		t.Errorf("then type %d, % x", typ, b)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(uint8(0), []byte("hello"), uint16(3), false)
	f.Add(uint8(1), []byte{22, 4, 0, 0, 1, 23, 1, 'a'}, uint16(100), true)
	f.Add(uint8(2), ticket, uint16(1), true)
	// script is turned into records: type, length, content; lease is how many
	// bytes the reader takes at once.
	f.Fuzz(func(t *testing.T, id uint8, script []byte, lease uint16, client bool) {
		suite := ids[int(id)%len(ids)]
		peer, err := newHalf(suite, secretOf(suite, 1))
		if err != nil {
			t.Fatal(err)
		}
		var stream, want []byte
		for s := script; len(s) >= 2 && len(stream) < 1<<20; {
			n := min(len(s)-2, int(s[1]))
			typ, content := s[0], s[2:2+n]
			if typ%2 == 0 {
				typ = typeApplicationData
				content = bytes.Repeat(content, 1+int(s[0])%64)
			}
			if typ == typeApplicationData {
				want = append(want, content...)
			}
			s = s[2+n:]
			if typ == 0xff {
				stream = append(stream, content...) // junk
				continue
			}
			stream = peer.seal(stream, typ, content)
		}
		got, err := drain(t, suite, stream, int(lease)+1, client)
		if err == nil || !bytes.HasPrefix(want, got) {
			t.Fatalf("read %q, %v, of %q", got, err, want)
		}
		whole, _ := drain(t, suite, stream, 64<<10, client)
		if !bytes.Equal(got, whole) {
			t.Fatalf("read %q by %d bytes, %q by 64 KiB", got, lease, whole)
		}
	})
}

// drain reads a stream to its end, from a socket that gives it in odd parts.
func drain(t testing.TB, id uint16, stream []byte, lease int, client bool) (got []byte, err error) {
	c, err := New(&script{bytes: stream, state: uint32(lease)}, Params{Suite: id, Client: client, Read: secretOf(id, 1), Write: secretOf(id, 2)})
	if err != nil {
		t.Fatal(err)
	}
	for range 4*len(stream) + 64 {
		unit, err := c.ReadUnit(func() []byte { return make([]byte, lease) })
		got = append(got, unit...)
		if err != nil {
			if c.held != nil {
				t.Error("a buffer is held after the end")
			}
			return got, err
		}
	}
	t.Error("reading does not end")
	return got, nil
}

// script is a connection that gives bytes and takes all.
type script struct {
	flow.Conn
	bytes []byte
	state uint32 // of how many next; the same input is cut the same way
}

func (s *script) ReadUnit(lease func() []byte) ([]byte, error) {
	if len(s.bytes) == 0 {
		return nil, io.EOF
	}
	p := lease()
	s.state = s.state*1664525 + 1013904223
	n := copy(p[:min(len(p), 1+int(s.state>>24)*16)], s.bytes)
	s.bytes = s.bytes[n:]
	return p[:n], nil
}

func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
