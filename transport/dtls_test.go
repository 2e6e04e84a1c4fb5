package transport

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/wire"
)

// capturedHellos gives the datagrams of what real clients sent first, by name.
func capturedHellos(t testing.TB) map[string][][]byte {
	t.Helper()
	files, err := filepath.Glob("../wire/testdata/dtls/*.hex")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured hellos: %v", err)
	}
	all := make(map[string][][]byte)
	for _, file := range files {
		if strings.Contains(file, "-cookie") { // of a server that is not here
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ = bytes.Cut(text, []byte("\n"))
		for part := range strings.SplitSeq(string(text), "\n\n") {
			b, err := hex.DecodeString(strings.ReplaceAll(part, "\n", ""))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			name := strings.TrimSuffix(filepath.Base(file), ".hex")
			all[name] = append(all[name], b)
		}
	}
	return all
}

// whole is a hello that came in these datagrams, in one.
func whole(t testing.TB, datagrams [][]byte) []byte {
	t.Helper()
	if len(datagrams) == 1 {
		return datagrams[0]
	}
	var parts wire.HelloFragments
	for _, d := range datagrams {
		if b, err := parts.Feed(d); err == nil {
			return b
		}
	}
	t.Fatal("parts that make no hello")
	return nil
}

func size(datagrams [][]byte) (n int) {
	for _, d := range datagrams {
		n += len(d)
	}
	return n
}

// DT-01: a hello without a cookie costs the listener an answer that is no larger,
// and nothing that stays.
func TestHelloIsAskedForACookie(t *testing.T) {
	hellos := capturedHellos(t)
	hellos["the smallest"] = [][]byte{greeting(1)}
	// As small as a head can be: no suite, no compression. It is no hello, but is answered.
	body := append(bytes.Repeat([]byte{1}, 34), 0, 0, 0, 0, 0)
	hellos["smaller still"] = [][]byte{helloOf(0, 0, body)}
	hellos["in single bytes"] = nil
	for i := range body {
		hellos["in single bytes"] = append(hellos["in single bytes"], helloPart(uint64(i), 0, body, i, i+1))
	}
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		asked := uint64(0)
		for name, datagrams := range hellos {
			c := d.caller()
			head := headOf(t, whole(t, datagrams))
			c.send(datagrams...)
			answer := c.hear()
			seq, cookie, ok := readVerify(answer)
			if !ok || len(answer) > size(datagrams) || len(cookie) == 0 {
				t.Errorf("%s: %d bytes for %d: %x", name, len(answer), size(datagrams), answer)
			}
			if seq != head.RecordSeq || binary.BigEndian.Uint16(answer[17:]) != head.MessageSeq {
				t.Errorf("%s: the answer has another number than the hello", name)
			}
			if more := c.settle(); len(more) != 0 {
				t.Errorf("%s: and %x", name, more)
			}
			asked += 2
		}
		d.wantCounts(map[PacketCount]uint64{PacketsVerifySent: asked})
		d.wantLive(0, 0)
		wantNothingKept(t, d)
	})
}

func wantNothingKept(t testing.TB, d *demux) {
	t.Helper()
	d.a.mu.RLock()
	defer d.a.mu.RUnlock()
	d.a.waiting.mu.Lock()
	defer d.a.waiting.mu.Unlock()
	if n := len(d.a.at) + len(d.a.cids) + len(d.a.waiting.list) + len(d.a.handshakes.each) + len(d.a.associations.each) + len(d.a.backlog); n != 0 || d.a.queued.Load() != 0 {
		t.Errorf("%d things and %d bytes are kept", n, d.a.queued.Load())
	}
}

// The hello that brings our cookie begins the association, and is the first that
// it reads: in one record, as it was sent but for what it was cut into.
func TestHelloWithOurCookieBegins(t *testing.T) {
	hellos := capturedHellos(t)
	hellos["the smallest"] = [][]byte{greeting(1)}
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		n := uint64(0)
		for name, datagrams := range hellos {
			c := d.caller()
			first := whole(t, datagrams)
			second := again(t, first, c.cookie(datagrams...))
			if len(datagrams) > 1 { // it is cut again
				b := second[25:]
				for from := 0; from < len(b); from += 100 {
					c.send(helloPart(uint64(from), 1, b, from, min(from+100, len(b))))
				}
			} else {
				c.send(second)
			}
			f, s := d.accept()
			got, err := read(s)
			if err != nil || !bytes.Equal(got[13:], second[13:]) || f.Origin.Client != c.addr() {
				t.Errorf("%s: of %v\n%x, %v, not\n%x", name, f.Origin, got, err, second)
			}
			if head := headOf(t, got); len(head.Record) != len(got) {
				t.Errorf("%s: %d bytes in a record of %d", name, len(got), len(head.Record))
			}
			wantWrite(t, s, "flight")
			c.wantHear("flight")
			c.send(sealed("finished"))
			wantRead(t, s, string(sealed("finished")))
			n++
			d.wantLive(int(n), 1)
			s.Established()
			d.wantLive(int(n), 0)
			s.Established()
			d.wantLive(int(n), 0)
		}
		d.wantCounts(map[PacketCount]uint64{PacketsVerifySent: n, PacketsBegun: n})
	})
}

// The clients themselves take our request for a cookie, and come back with it.
func TestRealClientsShowTheirCookie(t *testing.T) {
	for name, args := range map[string][]string{
		"openssl":             {"s_client", "-dtls1_2", "-connect", "127.0.0.1:PORT"},
		"openssl mtu":         {"s_client", "-dtls1_2", "-mtu", "256", "-servername", "a.example", "-connect", "127.0.0.1:PORT"},
		"gnutls-cli":          {"-u", "--insecure", "-p", "PORT", "127.0.0.1"},
		"gnutls-cli mtu":      {"-u", "--insecure", "--mtu=150", "-p", "PORT", "127.0.0.1"},
		"coap-client-openssl": {"-m", "get", "-u", "device", "-k", "secretsecret", "coaps://127.0.0.1:PORT/"},
		"coap-client-gnutls":  {"-m", "get", "-u", "device", "-k", "secretsecret", "coaps://127.0.0.1:PORT/"},
	} {
		t.Run(name, func(t *testing.T) {
			program, _, _ := strings.Cut(name, " ")
			path, err := exec.LookPath(program)
			if err != nil {
				t.Skip("there is no", program)
			}
			d := listenDTLS(t, 2, PacketLimits{})
			args := slices.Clone(args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "PORT", strconv.Itoa(int(d.a.port)))
			}
			cmd := exec.CommandContext(t.Context(), path, args...)
			in, err := cmd.StdinPipe() // some leave at its end
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { in.Close(); cmd.Process.Kill(); cmd.Wait() }()
			_, s := d.accept()
			p, err := read(s)
			if err != nil {
				t.Fatal(err)
			}
			h, err := wire.ParseDTLSHello(p)
			if err != nil || len(h.Cookie) != cookieSize || h.MessageSeq != 1 {
				t.Errorf("%+v, %v", h, err)
			}
			if d.count(PacketsBadCookie)+d.count(PacketsBadFragments)+d.count(PacketsNotDTLS) != 0 {
				t.Errorf("%v", d.a.Counters().Snapshot())
			}
		})
	}
}

// Each begins with a cookie of ours that is not for what is sent with it.
func TestWrongCookieIsAskedAgain(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		elsewhere := listenDTLS(t, sockets, PacketLimits{})
		c := d.caller()
		hello := greeting(1)
		cookie := c.cookie(hello)
		patched := func(at int) []byte { b := bytes.Clone(hello); b[at] ^= 1; return b }
		wrong := uint64(0)
		refuses := func(what string, by *caller, hello, cookie []byte) {
			t.Helper()
			by.send(again(t, hello, cookie))
			if _, new, ok := readVerify(by.hear()); !ok || bytes.Equal(new, cookie) {
				t.Errorf("%s: asked for %x, was %x", what, new, cookie)
			}
			wrong++
			d.wantLive(0, 0)
		}
		refuses("another port", d.caller(), hello, cookie)
		refuses("another address", d.call("127.0.0.9", "127.0.0.1"), hello, cookie)
		refuses("another version", c, patched(13+12+1), cookie)
		refuses("another random", c, patched(13+12+2+31), cookie)
		refuses("another suite", c, patched(len(hello)-3), cookie)
		refuses("one bit", c, hello, append(cookie[:19:19], cookie[19]^1))
		refuses("one byte less", c, hello, cookie[:19])
		refuses("one byte more", c, hello, append(cookie[:20:20], 0))
		refuses("one byte", c, hello, []byte{1})
		refuses("another listener's", c, hello, (&caller{elsewhere.caller().UDPConn, elsewhere}).cookie(hello))
		d.wantCounts(map[PacketCount]uint64{PacketsBadCookie: wrong, PacketsVerifySent: wrong + 1})
		wantNothingKept(t, d)
		// And after all that it is good.
		c.send(again(t, hello, cookie))
		_, s := d.accept()
		wantRead(t, s, string(again(t, hello, cookie)))
	})
}

// A hello keeps its way in for as long as the listener's secrets do.
func TestOldCookieIsAskedAgain(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	older := func(by time.Duration) {
		s := *d.a.cookies.now.Load()
		s.born = s.born.Add(-by)
		d.a.cookies.now.Store(&s)
	}
	c := d.caller()
	hello := greeting(1)
	cookie := c.cookie(hello)
	older(secretFor)
	c.send(again(t, hello, cookie))
	_, s := d.accept()
	wantRead(t, s, string(again(t, hello, cookie)))
	s.Close()

	older(secretFor)
	if fresh := c.cookie(again(t, hello, cookie)); bytes.Equal(fresh, cookie) {
		t.Error("it is asked for the old one")
	} else {
		c.send(again(t, hello, fresh))
	}
	d.accept()
	d.wantCounts(map[PacketCount]uint64{PacketsVerifySent: 2, PacketsBadCookie: 1, PacketsBegun: 2})
}

// What is lost is sent again, and is no second client.
func TestHelloSentAgain(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{})
		c := d.caller()
		hello := greeting(1)
		if one, two := c.cookie(hello), c.cookie(hello); !bytes.Equal(one, two) {
			t.Error("two cookies for one hello: the client's second one would not do")
		}
		s := c.begin(hello)
		second := again(t, hello, c.cookie(hello))
		for i := range uint64(3) {
			b := numbered(bytes.Clone(second), 5+i)
			c.send(b)
			wantRead(t, s, string(b))
		}
		// Also where it is cut, as a client does that takes silence for too large a datagram.
		body := second[25:]
		for from := 0; from < len(body); from += 20 {
			c.send(helloPart(9, 1, body, from, min(from+20, len(body))))
		}
		if got, err := read(s); err != nil || !bytes.Equal(got[13:], second[13:]) {
			t.Errorf("%x, %v", got, err)
		}
		s.Established()
		c.send(second)
		wantRead(t, s, string(second))
		d.wantLive(1, 0)
		if n := d.count(PacketsBegun); n != 1 {
			t.Errorf("%d associations begun", n)
		}
	})
}

// What follows the hello in its datagram is not the association's: it is from
// before the client has shown anything.
func TestOnlyTheHelloIsDelivered(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	hello := greeting(1)
	second := again(t, hello, c.cookie(slices.Concat(hello, sealed("rest"))))
	c.send(slices.Concat(second, sealed("rest")))
	_, s := d.accept()
	wantRead(t, s, string(second))
	c.settle()
	wantEmpty(t, s)
}

// Datagrams that are for nobody are dropped, each for its own reason, and none of
// them is answered.
func TestRubbishIsCountedAndNotAnswered(t *testing.T) {
	hello := greeting(1)
	body := hello[25:]
	in := func(msg []byte) []byte { return recordOf(wire.TypeHandshake, 0, 0, msg) }
	for _, c := range []struct {
		name string
		b    []byte
		want PacketCount
	}{
		{"nothing", nil, PacketsNotDTLS},
		{"a byte", []byte{22}, PacketsNotDTLS},
		{"zeros", make([]byte, 1200), PacketsNotDTLS},
		{"all that UDP carries", bytes.Repeat([]byte{0xfe}, maxPayload), PacketsNotDTLS},
		{"a TLS ClientHello", append([]byte{22, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3}, make([]byte, 194)...), PacketsNotDTLS},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"), PacketsNotDTLS},
		{"CoAP in clear", []byte("\x40\x01\x30\x39\xb4test\x04data"), PacketsNotDTLS},
		{"STUN", append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...), PacketsNotDTLS},
		{"QUIC", append([]byte{0xc3, 0, 0, 0, 1, 8}, make([]byte, 1194)...), PacketsNotDTLS},
		{"a sealed record of DTLS 1.3", append([]byte{0x2f, 0x12, 0, 1, 0, 40}, make([]byte, 40)...), PacketsNotDTLS},
		{"a record cut off", hello[:len(hello)-1], PacketsNotDTLS},
		{"a record's header", hello[:13], PacketsNotDTLS},
		{"a hello that claims 2^24-1 bytes", in(partOf(0, 1<<24-1, 0, body)), PacketsNotDTLS},
		{"a hello larger than a record", in(partOf(0, wire.MaxDTLSHello+1, 0, body)), PacketsNotDTLS},
		{"a fragment beyond its message", in(partOf(0, 10, 5, body[:6])), PacketsNotDTLS},
		{"an empty fragment", in(partOf(0, 100, 5, nil)), PacketsNotDTLS},
		{"a hello without suites", helloOf(0, 0, body[:36]), PacketsNotDTLS},
		{"a connection ID cut off", withCID("1234", "")[:15], PacketsNotDTLS},
		{"a connection ID of nobody", withCID("12345678", "sealed"), PacketsUnknownCID},
		{"a part and rubbish", append(helloPart(0, 0, body, 0, 20), "rubbish"...), PacketsBadFragments},
		{"a sealed record of nobody", sealed("data"), PacketsNoAssociation},
		{"a hello of the next epoch", recordOf(wire.TypeHandshake, 1, 0, hello[13:]), PacketsNoAssociation},
		{"a record of a late epoch", recordOf(23, 0xffff, 1<<48-1, []byte("data")), PacketsNoAssociation},
		{"data in clear", recordOf(23, 0, 0, []byte("data")), PacketsNoAssociation},
		{"an alert in clear", wire.AlertRecord(wire.VersionDTLS12, wire.AlertInternalError), PacketsNoAssociation},
		{"a HelloVerifyRequest", wire.AppendHelloVerifyRequest(nil, 0, 0, []byte("cookie")), PacketsNoAssociation},
		{"a ClientKeyExchange", recordOf(wire.TypeHandshake, 0, 1, []byte{16, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0}), PacketsNoAssociation},
		{"an empty handshake record", recordOf(wire.TypeHandshake, 0, 1, nil), PacketsNoAssociation},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachSockets(t, func(t *testing.T, sockets int) {
				d := listenDTLS(t, sockets, PacketLimits{})
				by := d.caller()
				by.send(c.b, c.b)
				if heard := by.settle(); len(heard) != 0 {
					t.Errorf("answered by %x", heard)
				}
				d.wantCounts(map[PacketCount]uint64{c.want: 2, PacketsVerifySent: 1})
				if n := d.count(PacketsReceived); n != 3 {
					t.Errorf("%d received", n)
				}
				wantNothingKept(t, d)
			})
		})
	}
}

// The same from one who has an association is that one's to judge, where it is a
// record at all.
func TestRubbishForAnAssociation(t *testing.T) {
	d := listenDTLS(t, 1, PacketLimits{})
	c := d.caller()
	s := c.begun(greeting(1))
	clear := recordOf(23, 0, 0, []byte("data"))
	c.send([]byte("rubbish"), []byte{22, 3, 3, 0, 1, 0}, nil, sealed("1"), withCID("12345678", "x"), clear, sealed("2")[:13], sealed("2"))
	for _, want := range [][]byte{sealed("1"), clear, sealed("2")} {
		wantRead(t, s, string(want))
	}
	c.settle()
	wantEmpty(t, s)
	d.wantLive(1, 0)
	d.wantCounts(map[PacketCount]uint64{PacketsBegun: 1, PacketsVerifySent: 2, PacketsNotDTLS: 4, PacketsUnknownCID: 1})
}

func TestHandshakeCaps(t *testing.T) {
	eachSockets(t, func(t *testing.T, sockets int) {
		for _, c := range []struct {
			name   string
			limits PacketLimits
			from   func(i int) int // the prefix of client i
			most   int
		}{
			{"in all", PacketLimits{Handshakes: 5}, func(i int) int { return i }, 5},
			{"per prefix", PacketLimits{HandshakesPrefix: 3}, func(i int) int { return i % 2 }, 6},
		} {
			t.Run(c.name, func(t *testing.T) {
				d := listenDTLS(t, sockets, c.limits)
				call := func(i int) *caller { return d.call(spoofed(c.from(i)).String(), "127.0.0.1") }
				var conns []*packetConn
				for i := range c.most {
					conns = append(conns, call(i).begin(greeting(uint64(i))))
				}
				d.wantLive(c.most, c.most)
				refused := uint64(0)
				over := func() {
					t.Helper()
					call(0).prove(greeting(99))
					refused++
					await(t, "it is refused", func() bool { return d.count(PacketsOverHandshakes) == refused })
				}
				over()
				over()
				// One that has finished counts no more, nor one that has left; either counts once.
				conns[0].Established()
				conns[0].Established()
				d.wantLive(c.most, c.most-1)
				call(0).begin(greeting(100))
				over()
				conns[2].Close()
				conns[2].Close()
				conns[2].Established()
				conns[0].Close()
				d.wantLive(c.most-1, c.most-1)
				call(0).begin(greeting(101))
				over()
				d.wantLive(c.most, c.most)
				d.wantCounts(map[PacketCount]uint64{PacketsBegun: uint64(c.most) + 2, PacketsOverHandshakes: 4, PacketsVerifySent: uint64(c.most) + 6})
			})
		}
	})
}

// DT-10, of clients that have shown where they are: the bound on handshakes keeps
// them off, and those who are established do not feel it.
func TestManyHandshakesThatNobodyFinishes(t *testing.T) {
	const most, all = 200, 10_000
	eachSockets(t, func(t *testing.T, sockets int) {
		d := listenDTLS(t, sockets, PacketLimits{Handshakes: most})
		c := d.caller()
		live := c.begun(greeting(1 << 40))
		s := d.spoofer()
		for n := 0; n < all; n += all / 10 {
			s.prove(n, n+all/10)
			if open, max := d.a.associations.size(d.a); open > most+1 || max > most+1 {
				t.Fatalf("%d associations, %d prefixes", open, max)
			}
			c.send(sealed("still here"))
			wantRead(t, live, string(sealed("still here")))
			wantWrite(t, live, "so am I")
			c.wantHear("so am I")
		}
		await(t, "all of them are counted", func() bool { return d.count(PacketsBegun)+d.count(PacketsOverHandshakes) == all+1 })
		d.wantCounts(map[PacketCount]uint64{PacketsBegun: most + 1, PacketsOverHandshakes: all - most, PacketsVerifySent: all + 1})
		d.wantLive(most+1, most)
	})
}

// size is how many there are, and of how many prefixes.
func (t *tally) size(a *PacketAcceptor) (all, prefixes int) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return t.all, len(t.each)
}
