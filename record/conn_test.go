package record

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/lease"
	"sallyport/wire"
)

// counting notes the writes that reach the socket, and waits in each if told to.
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

// What one write of the relay becomes leaves at once, in full records, but for
// the first few: those are small, and grow.
func TestWrites(t *testing.T) {
	x := newPair(t, 0x1302, nil)
	count := &counting{Conn: x.conn.lower}
	x.conn.lower, x.conn.below = count, flow.Writes(count)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	var sizes []int
	read := func(n int) {
		for n > 0 {
			_, b := x.receive()
			sizes = append(sizes, len(b))
			n -= len(b)
		}
	}
	for range 3 {
		if n, err := x.conn.Write(data); n != len(data) || err != nil {
			t.Fatal(n, err)
		}
		read(len(data))
	}
	if len(count.writes) != 3 {
		t.Errorf("3 units left in writes of %v bytes", count.writes)
	}
	if sizes[0] != firstRecord || sizes[1] != 2*firstRecord || sizes[len(sizes)-1] != maxPlaintext || sizes[len(sizes)-4] != maxPlaintext {
		t.Errorf("records of %v bytes", sizes)
	}
	go x.conn.Write(bytes.Repeat(data, 10))
	read(10 * len(data))
	if n, err := x.conn.Write(nil); n != 0 || err != nil {
		t.Error(n, err)
	}
}

// Four full records make one full unit, though their padding and types leave no
// room to open the last in it.
func TestFullUnit(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	var r []byte
	for i := range 4 {
		r = x.write.seal(r, 23, data[i*maxPlaintext:(i+1)*maxPlaintext])
	}
	x.raw(r)
	for got := 0; got < len(data); {
		u, err := x.unit()
		if err != nil || !bytes.Equal(u, data[got:got+len(u)]) {
			t.Fatalf("%d bytes, %v", len(u), err)
		}
		got += len(u)
	}
	c := &Conn{read: x.conn.read, in: r, held: lease.Get(lease.Most)}
	c.read.seq = 0
	if u, _ := c.gather(func() []byte { return make([]byte, 64<<10) }); !bytes.Equal(u, data) || c.held != nil {
		t.Errorf("%d bytes in one unit, of which the buffer is still held: %t", len(u), c.held != nil)
	}
}

// Opening needs room for the content type behind the content. What lies behind
// the buffer of who calls Read is no such room.
func TestReadKeepsToItsBuffer(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	x.send(23, bytes.Repeat([]byte{'a'}, 2*small)...)
	p := bytes.Repeat([]byte{'-'}, 4*small)
	n, err := x.conn.Read(p[:2*small])
	if n != 2*small || err != nil {
		t.Fatal(n, err)
	}
	if !bytes.Equal(p[n:], bytes.Repeat([]byte{'-'}, 2*small)) {
		t.Errorf("behind the buffer is %q", p[n:n+16])
	}
}

// While nothing comes nothing is held; of a record's beginning, little more than
// has come.
func TestIdleHoldsLittle(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	x.send(23, 'a')
	x.wantUnit("a")
	if x.conn.held != nil || x.conn.in != nil {
		t.Error("a buffer is held")
	}
	x.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := x.conn.ReadUnit(func() []byte { t.Error("leased with nothing there"); return nil }); err == nil {
		t.Error("something came")
	}
	for _, c := range []struct{ come, most int }{{5, 512}, {500, 512}, {3000, 4 << 10}, {16 << 10, 18 << 10}} {
		x := newPair(t, 0x1301, nil)
		r := x.write.seal(nil, 23, make([]byte, maxPlaintext))
		x.raw(r[:c.come])
		x.conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := x.conn.ReadUnit(func() []byte { t.Error("leased before a record"); return nil }); err == nil {
			t.Error("something came")
		}
		if x.conn.held == nil || len(x.conn.held.Data) != c.most {
			t.Errorf("of %d bytes: %+v", c.come, x.conn.held)
		}
		x.conn.SetReadDeadline(time.Time{})
		x.raw(r[c.come:])
		x.wantUnit(string(make([]byte, maxPlaintext)))
	}
}

// What is no data leases nothing from the reader, and is read on past.
func TestNoLeaseForWhatIsNoData(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	leased := 0
	done := make(chan []byte)
	go func() {
		u, _ := x.conn.ReadUnit(func() []byte { leased++; return make([]byte, 10) })
		done <- u
	}()
	for range 3 {
		x.update()
		x.send(23)
	}
	x.send(23, []byte("data")...)
	if u := <-done; string(u) != "data" || leased != 1 {
		t.Errorf("%q, leased %d times", u, leased)
	}
	// A large record of padding was leased for, and gives an empty unit.
	inner := append([]byte{24, 0, 0, 1, 0, typeHandshake}, make([]byte, 2000)...)
	head := []byte{23, 3, 3, byte((len(inner) + tagSize) >> 8), byte(len(inner) + tagSize)}
	x.raw(x.write.cipher().Seal(head, x.write.perRecord(), inner, head))
	x.write.update()
	if u, err := x.unit(); len(u) != 0 || err != nil {
		t.Errorf("%q, %v", u, err)
	}
}

// Asked for a KeyUpdate we answer once, ahead of our next data and not before.
func TestKeyUpdateIsAnsweredWithData(t *testing.T) {
	for _, id := range ids {
		x := newPair(t, id, nil)
		for range 2 {
			x.send(typeHandshake, 24, 0)
			x.send(typeHandshake, 0, 1, 1)
			x.write.update()
		}
		x.send(23, 'a')
		x.wantUnit("a")
		for i, want := range []string{"one", "two"} {
			if _, err := x.conn.Write([]byte(want)); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				if typ, b := x.receive(); typ != typeHandshake || !bytes.Equal(b, []byte{24, 0, 0, 1, 0}) {
					t.Fatalf("the answer is type %d, % x", typ, b)
				}
				x.read.update()
			}
			if typ, b := x.receive(); typ != 23 || string(b) != want {
				t.Fatalf("type %d, %q", typ, b)
			}
		}
	}
}

// A key is changed before it has sealed too much.
func TestKeysAreChanged(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	if x.conn.limit > 1<<24 {
		t.Errorf("a key seals %d records", x.conn.limit)
	}
	x.conn.limit = 4
	data := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
	go x.conn.Write(data)
	var got []byte
	updates, sealed := 0, 0
	for len(got) < len(data) {
		typ, b := x.receive()
		if sealed++; typ == typeHandshake {
			x.read.update()
			updates++
			sealed = 0
		} else {
			got = append(got, b...)
		}
		if sealed > 4 {
			t.Fatal("a key has sealed more than it may")
		}
	}
	if !bytes.Equal(got, data) || updates < 10 {
		t.Errorf("%d bytes, %d updates", len(got), updates)
	}
}

// Tickets are handed on as they came, up to the first record of another kind.
func TestTickets(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(x *pair)
		want int
	}{
		"none":               {func(x *pair) {}, 0},
		"two":                {func(x *pair) { x.send(22, ticket...); x.send(22, ticket...) }, 2},
		"two in one record":  {func(x *pair) { x.send(22, append(ticket[:len(ticket):len(ticket)], ticket...)...) }, 1},
		"one in two records": {func(x *pair) { x.send(22, ticket[:9]...); x.send(22, ticket[9:]...) }, 2},
		"after a KeyUpdate":  {func(x *pair) { x.update(); x.send(22, ticket...) }, 0},
		"after data":         {func(x *pair) { x.send(23); x.send(22, ticket...) }, 0},
		"before a KeyUpdate": {func(x *pair) { x.send(22, ticket...); x.update(); x.send(22, ticket...) }, 1},
		"beside a KeyUpdate": {func(x *pair) {
			x.send(22, append(ticket[:len(ticket):len(ticket)], 24, 0, 0, 1, 0)...)
			x.write.update()
		}, 0},
		"more than are wanted": {func(x *pair) { repeat(5, func() { x.send(22, ticket...) }) }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			var got [][]byte
			x := newPair(t, 0x1303, func(p *Params) {
				p.Client = true
				p.Tickets = func(r []byte) bool { got = append(got, r); return len(got) < 3 }
			})
			c.do(x)
			x.send(23, 'a')
			x.wantUnit("a")
			if len(got) != c.want {
				t.Errorf("%d records", len(got))
			}
			same, _ := newHalf(0x1303, secretOf(0x1303, 1))
			for _, r := range got {
				if typ, _, fault := same.open(nil, r); fault != nil || typ != 22 {
					t.Errorf("type %d, %v", typ, fault)
				}
			}
			if x.conn.tickets != nil {
				t.Error("what takes tickets is kept")
			}
		})
	}
}

// What was sealed under the last key before us, at the end of a flight.
func TestFlight(t *testing.T) {
	for id := range suites {
		older, _ := newHalf(id, secretOf(id, 9))
		before := append([]byte{22, 3, 3, 0, 2, 2, 0, 20, 3, 3, 0, 1, 1}, older.seal(older.seal(nil, 22, make([]byte, 3000)), 22, []byte("fin"))...)
		for n := range uint64(4) {
			ours, _ := newHalf(id, secretOf(id, 2))
			flight := bytes.Clone(before)
			for range n {
				flight = ours.seal(flight, 22, make([]byte, maxPlaintext))
			}
			h, _ := newHalf(id, secretOf(id, 2))
			if err := h.skip(flight); err != nil || h.seq != n {
				t.Errorf("%#x: %d records count as %d, %v", id, n, h.seq, err)
			}
		}
	}
}

// wiped says whether no secret is left.
func (c *Conn) wiped() bool { return c.read == half{} && c.write == half{} }

func TestClose(t *testing.T) {
	for name, end := range map[string]func(*Conn) error{
		"Close":                (*Conn).Close,
		"CloseWrite and Close": func(c *Conn) error { return errors.Join(c.CloseWrite(), c.CloseWrite(), c.Close()) },
	} {
		x := newPair(t, 0x1301, nil)
		x.conn.Write([]byte("a"))
		waiting := make(chan error)
		go func() { _, err := x.unit(); waiting <- err }()
		time.Sleep(10 * time.Millisecond)
		if err := end(x.conn); err != nil {
			t.Error(name, err)
		}
		if err := <-waiting; !errors.Is(err, net.ErrClosed) {
			t.Error(name, err)
		}
		x.receive()
		if typ, b := x.receive(); typ != typeAlert || !bytes.Equal(b, []byte{1, 0}) {
			t.Errorf("%s: type %d, % x", name, typ, b)
		}
		if n, err := x.peer.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			t.Errorf("%s: then %d bytes, %v", name, n, err)
		}
		if _, err := x.conn.Write([]byte("a")); err == nil {
			t.Errorf("%s: written afterwards", name)
		}
		if _, err := x.unit(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: reading gives %v", name, err)
		}
		if !x.conn.wiped() {
			t.Errorf("%s: a secret is left", name)
		}
	}
}

func TestCloseWriteSendsNoFIN(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	x.conn.CloseWrite()
	x.receive()
	x.peer.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	var timeout net.Error
	if _, err := x.peer.Read(make([]byte, 1)); !errors.As(err, &timeout) {
		t.Errorf("got %v", err)
	}
	// The other direction is open, and alerts may still be due.
	x.send(23, 'a')
	x.wantUnit("a")
	x.send(99, 1)
	x.unit()
	x.peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	if typ, b := x.receive(); typ != typeAlert || b[1] != byte(wire.AlertUnexpectedMessage) {
		t.Errorf("type %d, % x", typ, b)
	}
}

func TestAbort(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	if err := x.conn.Abort(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(struct{ io.Reader }{x.peer}); len(b) > 0 || err == nil {
		t.Errorf("the peer got % x, %v", b, err)
	}
	if !x.conn.wiped() {
		t.Error("a secret is left")
	}
}

// A Close amid a Write breaks it at once, and the writer wipes its secret.
func TestCloseAmidAWrite(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	wrote := make(chan error, 1)
	go func() {
		_, err := x.conn.Write(make([]byte, 32<<20))
		wrote <- err
	}()
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	x.conn.Close()
	if err := <-wrote; err == nil || time.Since(start) > time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	if !x.conn.wiped() {
		t.Error("a secret is left")
	}
}

func TestRest(t *testing.T) {
	x := newPair(t, 0x1302, func(p *Params) { p.Client, p.Tickets = true, func([]byte) bool { return true } })
	for range 3 {
		x.send(23, 'a')
		x.wantUnit("a")
		if _, err := x.conn.Write([]byte("b")); err != nil {
			t.Fatal(err)
		}
		if typ, b := x.receive(); typ != 23 || string(b) != "b" {
			t.Fatal(typ, b)
		}
		x.conn.Rest()
		if x.conn.read.aead != nil || x.conn.write.aead != nil || x.conn.tickets != nil {
			t.Error("something is kept that can be made again")
		}
	}
}

// watched is a connection that can wait without a goroutine.
type watched struct {
	flow.Conn
	asked int
}

func (w *watched) WhenReadable(func()) error { w.asked++; return nil }

// Who waits for the socket is not left waiting for what was read from it.
func TestWhenReadable(t *testing.T) {
	x := newPair(t, 0x1301, nil)
	w := &watched{Conn: x.conn.lower}
	x.conn.lower = w
	x.raw(x.write.seal(x.write.seal(nil, 23, []byte("one")), 23, []byte("two")))
	read := func(want string) {
		if u, err := x.conn.ReadUnit(func() []byte { return make([]byte, 3) }); err != nil || string(u) != want {
			t.Errorf("%q, %v", u, err)
		}
	}
	read("one")
	woken := make(chan struct{})
	if err := x.conn.WhenReadable(func() { close(woken) }); err != nil {
		t.Fatal(err)
	}
	<-woken
	read("two")
	if err := x.conn.WhenReadable(nil); err != nil || w.asked != 1 {
		t.Errorf("%v, asked %d times", err, w.asked)
	}
}
