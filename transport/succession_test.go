package transport

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"sallyport/flow"
)

// succeed has another acceptor take over the sockets of d. A process has one each; the
// kernel cannot tell.
func (d *demux) succeed(o PacketOptions) *demux {
	d.Helper()
	files, err := d.a.Files()
	if err != nil {
		d.Fatal(err)
	}
	o.Inherited = files
	next := listenDemux(d, "127.0.0.1", o)
	closeAll(files)
	if err := d.a.Leave(); err != nil {
		d.Fatal(err)
	}
	next.a.Begin()
	return next
}

func TestSuccessionOfPlainDatagrams(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: sockets})
		var old []*caller
		var theirs []*packetConn
		for range 20 {
			c := d.caller()
			c.send([]byte("first"))
			_, s := d.accept()
			wantRead(t, s, "first")
			old, theirs = append(old, c), append(theirs, s)
		}
		next := d.succeed(PacketOptions{})
		for i, c := range old {
			c.send([]byte("again"))
			wantRead(t, theirs[i], "again")
			wantWrite(t, theirs[i], "answer")
			c.wantHear("answer")
		}
		c := &caller{d.caller().UDPConn, next}
		c.send([]byte("new"))
		_, s := next.accept()
		wantRead(t, s, "new")
		wantWrite(t, s, "welcome")
		c.wantHear("welcome")

		// Whose association has ended there begins one here.
		theirs[0].Close()
		await(t, "the successor is told of its end", func() bool { return !next.a.before.Load().has(&sender{key: theirs[0].key}) })
		old[0].send([]byte("anew"))
		f, s := next.accept()
		wantRead(t, s, "anew")
		if f.Origin.Client != old[0].addr() {
			t.Errorf("an association of %v", f.Origin.Client)
		}
		next.wantCounts(map[PacketCount]uint64{PacketsBegun: 2})

		// With the last of them the old acceptor ends, its sockets' other owner not.
		for _, s := range theirs {
			s.Close()
		}
		await(t, "the old acceptor's end", d.a.Ended)
		await(t, "nobody is before us", func() bool { return next.a.before.Load() == nil })
		old[1].send([]byte("anew"))
		_, s = next.accept()
		wantRead(t, s, "anew")
	})
}

func TestSuccessionOfDTLS(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		plain, named, shaking := d.caller(), d.caller(), d.caller()
		p := plain.begun(greeting(1))
		n := named.begun(greeting(2))
		if err := n.Bind([]byte("12345678")); err != nil {
			t.Fatal(err)
		}
		s := shaking.begin(greeting(3))
		again3 := again(t, greeting(3), shaking.cookie(greeting(3)))
		halfway := d.caller()
		second := again(t, greeting(4), halfway.cookie(greeting(4)))
		next := d.succeed(PacketOptions{DTLS: true})

		plain.send(sealed("a"))
		wantRead(t, p, string(sealed("a")))
		elsewhere := d.caller()
		elsewhere.send(withCID("12345678", "b"))
		wantRead(t, n, string(withCID("12345678", "b")))
		shaking.send(again3) // what it sent has been lost, it believes
		wantRead(t, s, string(again3))

		// A cookie of the old one's is good; who begins anew begins here.
		halfway.send(second)
		f, h := next.accept()
		wantRead(t, h, string(second))
		if f.Origin.Client != halfway.addr() {
			t.Errorf("an association of %v", f.Origin.Client)
		}
		anew := &caller{plain.UDPConn, next}
		fresh := anew.begun(greeting(5))
		plain.send(sealed("c"))
		wantRead(t, fresh, string(sealed("c")))
		next.wantCounts(map[PacketCount]uint64{PacketsBegun: 2, PacketsVerifySent: 1})

		// A connection ID that comes later is told of, as is one that goes.
		if err := p.Bind([]byte("abcdefgh")); err != nil {
			t.Fatal(err)
		}
		await(t, "the new connection ID", func() bool { return next.a.before.Load().hasCID([]byte("abcdefgh")) })
		n.Moved(elsewhere.addr())
		await(t, "the new address", func() bool { return next.a.before.Load().has(&sender{key: key{elsewhere.addr(), n.key.local}}) })
		n.Close()
		await(t, "its end", func() bool {
			b := next.a.before.Load()
			return !b.hasCID([]byte("12345678")) && !b.has(&sender{key: key{elsewhere.addr(), n.key.local}})
		})
	})
}

// Cookies are good for the successor also where no association is handed over, and the
// other acceptor has ended before its successor begins.
func TestSuccessionOfCookiesAlone(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	second := again(t, greeting(1), c.cookie(greeting(1)))
	next := d.succeed(PacketOptions{DTLS: true})
	if !d.a.Ended() {
		t.Error("the old acceptor has not ended")
	}
	c.send(second)
	_, s := next.accept()
	wantRead(t, s, string(second))
	next.wantCounts(map[PacketCount]uint64{PacketsBegun: 1})
}

// A predecessor that says nothing keeps its successor waiting for so long and no longer.
func TestPredecessorThatHangs(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{Sockets: 1})
	files, err := d.a.Files()
	if err != nil {
		t.Fatal(err)
	}
	next := listenDemux(t, "127.0.0.1", PacketOptions{Inherited: files})
	closeAll(files)
	for _, s := range d.a.sockets { // as of a process that is stopped
		s.SetReadDeadline(time.Unix(1, 0))
	}
	d.a.readers.Wait()
	began := time.Now()
	next.a.Begin()
	if took := time.Since(began); took < handoverWithin {
		t.Errorf("it waited for %s", took)
	}
	c := &caller{d.caller().UDPConn, next}
	c.send([]byte("first"))
	_, s := next.accept()
	wantRead(t, s, "first")

	// It goes on after all: what it had is gone, and it says so.
	if err := d.a.Leave(); err != nil {
		t.Error(err)
	}
	await(t, "its end", d.a.Ended)
}

// A successor that does not listen keeps nobody waiting, and associations are told once it ends.
func TestSuccessorThatHangs(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	var theirs []*packetConn
	for range 1000 { // more than the socket between the two has room for
		c := d.caller()
		c.send([]byte("first"))
		_, s := d.accept()
		wantRead(t, s, "first")
		theirs = append(theirs, s)
	}
	files, err := d.a.Files()
	if err != nil {
		t.Fatal(err)
	}
	next := listenDemux(t, "127.0.0.1", PacketOptions{Inherited: files})
	closeAll(files)
	if err := d.a.Leave(); err != nil {
		t.Fatal(err)
	}
	for _, s := range theirs[1:] {
		s.Close()
	}
	next.a.Close() // never having begun
	wantReason(t, theirs[0], flow.Drained)
	theirs[0].Close()
	await(t, "its end", d.a.Ended)
}

// Where the successor ends first, nobody reads for the associations that are left.
func TestSuccessorThatEnds(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	c := d.caller()
	c.send([]byte("first"))
	_, s := d.accept()
	wantRead(t, s, "first")
	next := d.succeed(PacketOptions{})
	next.a.Close()
	wantReason(t, s, flow.Drained)
}

// A process that asked for the sockets and took none changes nothing.
func TestSocketsOfferedInVain(t *testing.T) {
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	c := d.caller()
	c.send([]byte("first"))
	_, s := d.accept()
	wantRead(t, s, "first")
	for range 2 {
		files, err := d.a.Files()
		if err != nil {
			t.Fatal(err)
		}
		closeAll(files)
	}
	if err := d.a.Leave(); err != nil {
		t.Fatal(err)
	}
	c.send([]byte("second"))
	wantRead(t, s, "second")
	s.Close()
	await(t, "its end", d.a.Ended)
}

func TestSendersAreCarried(t *testing.T) {
	for _, k := range []key{
		{netip.MustParseAddrPort("192.0.2.7:1"), netip.MustParseAddr("0.0.0.0")},
		{netip.MustParseAddrPort("[2001:db8::1]:65535"), netip.MustParseAddr("::")},
		{netip.MustParseAddrPort("[fe80::1%4294967295]:5684"), netip.MustParseAddr("fe80::2")},
	} {
		for _, who := range []flow.Announced{{}, {Missing: true}, {Each: true}, {Client: k.client}, {Client: letter('a'), Each: true}} {
			from := sender{k, who}
			b := appendSender(nil, &from)
			if got := readSender(b); len(b) != senderSize || *got != from {
				t.Errorf("%v becomes %v, by %d bytes", from, got, len(b))
			}
		}
	}
}

func TestCookieSecretsAreCarried(t *testing.T) {
	now := time.Now()
	var a, b jar
	s := a.at(now)
	b.adopt(a.export(now.Add(10*time.Second)), now.Add(11*time.Second))
	if got := b.at(now.Add(12 * time.Second)); got.keys != s.keys || got.born != now.Add(time.Second) {
		t.Errorf("born %v, want %v; the keys are the same: %t", got.born, now.Add(time.Second), got.keys == s.keys)
	}
	if later := b.at(now.Add(40 * time.Second)); later.keys[1] != s.keys[0] {
		t.Error("they are not changed in time")
	}
	b.adopt([]byte("short"), now)
}

func TestInheritedFilesAreSockets(t *testing.T) {
	near, far, err := messages()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	defer far.Close()
	d := listenDemux(t, "127.0.0.1", PacketOptions{})
	files, err := d.a.Files()
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(files)
	for _, wrong := range [][]*os.File{{far}, {far, far}, {files[0], files[0]}} {
		if _, err := ListenPackets(t.Context(), "here", Where{}, PacketOptions{Inherited: wrong}); err == nil {
			t.Error("taken")
		}
	}
}
