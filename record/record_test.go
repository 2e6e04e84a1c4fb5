package record

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/transport"
	"sallyport/wire"
)

var ids = []uint16{0x1301, 0x1302, 0x1303}

func random(t testing.TB, n int) int {
	t.Helper()
	v, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		t.Fatal(err)
	}
	return int(v.Int64())
}

func secretOf(id uint16, fill byte) []byte { return bytes.Repeat([]byte{fill}, suites[id].secret) }

// sockets are both ends of one TCP connection.
func sockets(t testing.TB) (server, client flow.Conn) {
	t.Helper()
	ctx := context.Background()
	l, err := transport.Listen(ctx, "l", transport.Where{Host: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	d := transport.Dialer{Where: transport.Where{Host: addr.Addr().String(), Port: addr.Port()}, Timeout: time.Second}
	if client, err = d.Dial(ctx, new(flow.Flow)); err != nil {
		t.Fatal(err)
	}
	if _, server, err = l.Accept(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

// pair is a Conn and what its peer sees: the socket, and the peer's own halves.
type pair struct {
	t           testing.TB
	conn        *Conn
	peer        flow.Conn
	read, write half
}

func newPair(t testing.TB, id uint16, change func(*Params)) *pair {
	t.Helper()
	ours, theirs := sockets(t)
	p := Params{Suite: id, Read: secretOf(id, 1), Write: secretOf(id, 2)}
	if change != nil {
		change(&p)
	}
	c, err := New(ours, p)
	if err != nil {
		t.Fatal(err)
	}
	x := &pair{t: t, conn: c, peer: theirs}
	if x.write, err = newHalf(id, secretOf(id, 1)); err != nil {
		t.Fatal(err)
	}
	if x.read, err = newHalf(id, secretOf(id, 2)); err != nil {
		t.Fatal(err)
	}
	theirs.SetDeadline(time.Now().Add(20 * time.Second))
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return x
}

// send seals one record as the peer.
func (x *pair) send(typ byte, content ...byte) {
	x.t.Helper()
	x.raw(x.write.seal(nil, typ, content))
}

func (x *pair) raw(b []byte) {
	x.t.Helper()
	if _, err := x.peer.Write(b); err != nil {
		x.t.Fatal(err)
	}
}

// receive opens the next record as the peer.
func (x *pair) receive() (typ byte, content []byte) {
	x.t.Helper()
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(x.peer, head); err != nil {
		x.t.Fatal(err)
	}
	record := append(head, make([]byte, int(head[3])<<8|int(head[4]))...)
	if _, err := io.ReadFull(x.peer, record[headerSize:]); err != nil {
		x.t.Fatal(err)
	}
	typ, content, fault := x.read.open(nil, record)
	if fault != nil {
		x.t.Fatal(fault)
	}
	return typ, content
}

// unit reads one unit of at most 64 KiB.
func (x *pair) unit() ([]byte, error) {
	return x.conn.ReadUnit(func() []byte { return make([]byte, 64<<10) })
}

// wantUnit reads exactly s.
func (x *pair) wantUnit(s string) {
	x.t.Helper()
	if u, err := x.unit(); err != nil || string(u) != s {
		x.t.Fatalf("read %q, %v, want %q", u, err, s)
	}
}

// wantFault reads an error that lasts, and has the peer see its alert.
func (x *pair) wantFault(alert wire.Alert) {
	x.t.Helper()
	for range 2 {
		_, err := x.unit()
		var f *Fault
		if !errors.As(err, &f) || f.Alert != alert {
			x.t.Fatalf("read gives %v, want %s", err, alert)
		}
	}
	if typ, got := x.receive(); typ != typeAlert || !bytes.Equal(got, []byte{2, byte(alert)}) {
		x.t.Errorf("the peer got type %d, % x, want %s", typ, got, alert)
	}
	if _, err := x.conn.Write([]byte("x")); err == nil {
		x.t.Error("data may be written after a fatal alert")
	}
}

// The example of RFC 8448, section 3: the server's application key and nonce.
func TestRFC8448(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	h, err := newHalf(0x1301, unhex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643"))
	if err != nil {
		t.Fatal(err)
	}
	if key := h.expand("key", 16); !bytes.Equal(key, unhex("9f02283b6c9c07efc26bb9f2ac92e356")) {
		t.Errorf("key %x", key)
	}
	if iv := h.expand("iv", 12); !bytes.Equal(iv, unhex("cf782b88dd83549aadf1e984")) {
		t.Errorf("iv %x", iv)
	}
}

func TestParamsThatContradict(t *testing.T) {
	ours, _ := sockets(t)
	for _, p := range []Params{
		{Suite: 0x1304, Read: secretOf(0x1301, 1), Write: secretOf(0x1301, 1)},
		{Suite: 0x1302, Read: secretOf(0x1301, 1), Write: secretOf(0x1302, 1)},
		{Suite: 0x1301, Read: secretOf(0x1301, 1)},
		{Suite: 0x1301, Read: secretOf(0x1301, 1), Write: secretOf(0x1301, 1), Flight: []byte{23, 3, 3, 0, 9, 1}},
	} {
		if _, err := New(ours, p); err == nil {
			t.Errorf("%+v passed", p)
		}
	}
}

// stream is crypto/tls at the other end, with the connection taken over.
type stream struct {
	conn *Conn
	tls  *tls.Conn
}

// keyLog keeps what of a key log we need.
type keyLog map[string][]byte

func (k keyLog) Write(line []byte) (int, error) {
	words := strings.Fields(string(line))
	secret, err := hex.DecodeString(words[2])
	k[words[0]] = secret
	return len(line), err
}

// flight keeps what has been written since there were secrets, and hands up no
// more than one record.
type flight struct {
	flow.Conn
	log  keyLog
	kept []byte
}

func (f *flight) Write(p []byte) (int, error) {
	if len(f.log) > 2 {
		f.kept = append(f.kept, p...)
	}
	return f.Conn.Write(p)
}

func (f *flight) Read(p []byte) (int, error) { return f.Conn.Read(p[:1]) } // so that nothing is read ahead

// against makes a handshake of two crypto/tls and takes one end over.
func against(t testing.TB, weAreClient bool) stream {
	t.Helper()
	site := ca.Test(t)
	leaf := site.Leaf([]string{"a.test"})
	s, c := sockets(t)
	log := keyLog{}
	serverConf := &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}, MinVersion: tls.VersionTLS13}
	clientConf := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	ours := &flight{log: log}
	var server, client *tls.Conn
	if weAreClient {
		clientConf.KeyLogWriter = log
		ours.Conn = c
		server, client = tls.Server(s, serverConf), tls.Client(ours, clientConf)
	} else {
		serverConf.KeyLogWriter = log
		ours.Conn = s
		server, client = tls.Server(ours, serverConf), tls.Client(c, clientConf)
	}
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := errors.Join(client.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	p := Params{Suite: client.ConnectionState().CipherSuite, Client: weAreClient, Flight: ours.kept,
		Read: log["CLIENT_TRAFFIC_SECRET_0"], Write: log["SERVER_TRAFFIC_SECRET_0"]}
	x := stream{tls: client}
	if weAreClient {
		p.Read, p.Write = p.Write, p.Read
		x.tls = server
	}
	var err error
	if x.conn, err = New(ours.Conn, p); err != nil {
		t.Fatal(err)
	}
	return x
}

// Both directions at once against crypto/tls, in both roles, with writes and
// reads of every size; under -race also a second writer and resting.
func TestAgainstCryptoTLS(t *testing.T) {
	for _, weAreClient := range []bool{false, true} {
		x := against(t, weAreClient)
		data := make([]byte, 4<<20)
		rand.Read(data)
		var all, resting sync.WaitGroup
		stop := make(chan struct{})
		resting.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
					x.conn.Rest()
				}
			}
		})
		for _, d := range []struct {
			from io.Writer
			end  func() error
			all  func() ([]byte, error)
		}{
			{x.conn, x.conn.CloseWrite, func() ([]byte, error) { return io.ReadAll(x.tls) }},
			{x.tls, x.tls.CloseWrite, func() ([]byte, error) { return readAll(t, x.conn) }},
		} {
			all.Go(func() {
				for rest := data; len(rest) > 0; {
					n := min(len(rest), 1+random(t, 100_000))
					if random(t, 2) == 0 {
						n = min(n, 50)
					}
					if _, err := d.from.Write(rest[:n]); err != nil {
						t.Error(err)
						return
					}
					rest = rest[n:]
				}
				if err := d.end(); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				if got, err := d.all(); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes of %d, or others: %v", len(got), len(data), err)
				}
			})
		}
		all.Wait()
		close(stop)
		resting.Wait()
	}
}

// readAll reads a Conn by units into buffers of any size.
func readAll(t testing.TB, c *Conn) (got []byte, err error) {
	for {
		size := 1 + random(t, 80_000)
		unit, err := c.ReadUnit(func() []byte { return make([]byte, size, size+random(t, 2)) })
		if len(unit) > size || len(unit) > 0 && err != nil {
			t.Errorf("a unit of %d bytes, %d leased, %v", len(unit), size, err)
		}
		got = append(got, unit...)
		switch {
		case err == io.EOF:
			return got, nil
		case err != nil:
			return got, err
		}
	}
}
