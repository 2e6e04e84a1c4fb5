package secure

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/internal/testnet"
)

// Each way for a peer to end, and what Read then says.
func TestEndings(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, c := range []struct {
			name    string
			lenient bool
			end     func(p *pair)
			want    error
		}{
			{"close_notify", false, func(p *pair) { p.client.CloseWrite() }, io.EOF},
			{"close_notify and FIN", false, func(p *pair) { p.client.Close() }, io.EOF},
			{"bare FIN", false, func(p *pair) { p.bareClient.CloseWrite() }, flow.ErrTruncated},
			{"bare FIN, tolerated", true, func(p *pair) { p.bareClient.CloseWrite() }, io.EOF},
			{"FIN within a record", false, func(p *pair) { p.bareClient.Write([]byte{23, 3, 3, 0, 99, 1}); p.bareClient.CloseWrite() }, flow.ErrTruncated},
			{"reset", false, func(p *pair) { flow.Abort(p.client) }, syscall.ECONNRESET},
		} {
			s := newSite(t)
			s.server.Max, s.server.Truncation = version, c.lenient
			p := s.good()
			c.end(p)
			p.server.SetReadDeadline(time.Now().Add(10 * time.Second))
			unit, err := flow.Units(p.server).ReadUnit(func() []byte { return make([]byte, 100) })
			if len(unit) != 0 || !errors.Is(err, c.want) {
				t.Errorf("%s, %#04x: read %q, %v, want %v", c.name, version, unit, err, c.want)
			}
			if _, again := p.server.Read(make([]byte, 1)); !errors.Is(again, c.want) && c.want != syscall.ECONNRESET {
				t.Errorf("%s, %#04x: then %v", c.name, version, again)
			}
		}
	}
}

func TestHalfClose(t *testing.T) {
	s := newSite(t)
	p := s.good()
	p.client.CloseWrite()
	if _, err := p.server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	go func() {
		p.server.Write(make([]byte, 100_000))
		p.server.CloseWrite()
	}()
	if b, err := io.ReadAll(struct{ io.Reader }{p.client}); err != nil || len(b) != 100_000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

// counting counts the writes that reach the socket.
type counting struct {
	flow.Conn
	mu     sync.Mutex
	writes []int
}

func (c *counting) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func TestRecordsAreGathered(t *testing.T) {
	s := newSite(t)
	s.server.Record, s.client.Record = false, false
	p := s.good()
	c := p.client.(*conn)
	count := &counting{Conn: c.under.Conn}
	c.under.Conn = count
	data := make([]byte, unitSize)
	rand.Read(data)
	over := make(chan struct{})
	go func() {
		defer close(over)
		p.client.Write(data)
		p.client.CloseWrite()
	}()
	got, err := io.ReadAll(struct{ io.Reader }{p.server})
	<-over
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if len(count.writes) != 2 || count.writes[0] <= unitSize {
		t.Errorf("the socket saw writes of %v bytes, want one for all records and one for close_notify", count.writes)
	}
}

// A unit takes every whole record that is here, and waits for none.
func TestUnitTakesWhatIsHere(t *testing.T) {
	s := newSite(t)
	p := s.good()
	for range 3 {
		p.client.Write(bytes.Repeat([]byte("x"), 1000))
	}
	// Part of a further record, which must not be waited for.
	p.bareClient.Write([]byte{23, 3, 3, 0})
	total, units := 0, 0
	for total < 3000 {
		unit, err := flow.Units(p.server).ReadUnit(func() []byte { return make([]byte, unitSize) })
		if err != nil {
			t.Fatal(err)
		}
		total += len(unit)
		units++
	}
	if total != 3000 || units > 3 {
		t.Errorf("%d bytes in %d units", total, units)
	}
}

// While nothing comes, no buffer is held.
func TestIdleHoldsNoBuffer(t *testing.T) {
	s := newSite(t)
	s.server.Record, s.client.Record = false, false
	p := s.good()
	leased := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		flow.Units(p.server).ReadUnit(func() []byte { leased = true; return make([]byte, 10) })
	}()
	p.client.Write([]byte("x"))
	<-done
	if c := p.server.(*conn); !leased || c.under.buf != nil || c.under.in != nil {
		t.Errorf("leased %t, and below %d bytes are held", leased, len(c.under.in))
	}
	p.server.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := flow.Units(p.server).ReadUnit(func() []byte { t.Error("leased with nothing there"); return make([]byte, 10) })
	var timeout net.Error
	if !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("got %v", err)
	}
	if c := p.server.(*conn); c.under.buf != nil {
		t.Error("a buffer is held after a wait")
	}
}

// Both directions at once, with writes of every kind of size, under -race.
func TestDuplex(t *testing.T) {
	s := newSite(t)
	p := s.good()
	var all sync.WaitGroup
	for _, d := range [][2]flow.Conn{{p.client, p.server}, {p.server, p.client}} {
		data := make([]byte, 3<<20)
		rand.Read(data)
		all.Go(func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+int(rest[0])*400)
				if _, err := d[0].Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
			d[0].CloseWrite()
		})
		all.Go(func() {
			var got []byte
			for {
				unit, err := flow.Units(d[1]).ReadUnit(func() []byte { return make([]byte, unitSize) })
				got = append(got, unit...)
				if err != nil {
					if err != io.EOF {
						t.Error(err)
					}
					break
				}
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%d bytes arrived of %d, or others", len(got), len(data))
			}
		})
	}
	all.Wait()
}

// After close_notify a KeyUpdate may still have to be answered: the connection
// below keeps no deadline of crypto/tls's.
func TestNoDeadlineIsLeftBehind(t *testing.T) {
	s := newSite(t)
	s.server.Record, s.client.Record = false, false
	p := s.good()
	if err := p.server.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.server.(*conn).under.Write([]byte{23, 3, 3, 0, 0}); err != nil {
		t.Errorf("what follows close_notify cannot be written: %v", err)
	}
	if err := p.server.Close(); err != nil {
		t.Error(err)
	}
}

func TestWriteUnitKeepsOnlyWhatIsLeft(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := newSite(t)
			s.client.Params.Max = version
			p := s.shake(NewServer(s.server), NewClient(s.client))
			if p.serverErr != nil || p.clientErr != nil {
				t.Fatal(p.serverErr, p.clientErr)
			}
			testnet.WantUnitsTaken(t, p.client.(testnet.UnitWriter), p.server)
		})
	}
}
