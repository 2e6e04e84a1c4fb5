package main

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// splicing is the program with a route that ends TLS, for a.test, and two that
// pass it on: b.test and every other name go to servers that keep what they get.
type splicing struct {
	*way
	b, other <-chan []byte
}

func startSplicing(t *testing.T, s *site) *splicing {
	t.Helper()
	b, bAddr := recording(t)
	other, otherAddr := recording(t)
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	text := fmt.Sprintf(`
listeners:
- from: tls://127.0.0.1:0
  cert: %s
  key: %s
  routes:
  - {match: {sni: a.test}, to: "tcp://%s"}
  - {match: {sni: b.test}, action: splice, to: "tcp://%s"}
  - {action: splice, to: "tcp://%s"}
`, s.cert, s.key, serving(t, echo), bAddr, otherAddr)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &way{site: s, in: true}
	w.Program = start(t, "run", "-c", file)
	return &splicing{w, b, other}
}

// recording is a server that keeps what each client sends, and says that it has.
func recording(t *testing.T) (<-chan []byte, string) {
	t.Helper()
	got := make(chan []byte, 16)
	return got, serving(t, func(c *net.TCPConn) {
		p, err := io.ReadAll(c)
		if err != nil {
			p = []byte(err.Error())
		}
		got <- p
		io.WriteString(c, "kept")
	})
}

// wantPassed sends hello, cut, and holds against it what the server gets.
func (s *splicing) wantPassed(t *testing.T, to <-chan []byte, sni string, hello []byte, cut cutting) {
	t.Helper()
	c := plainPeer(dial(t, s.Addr("")))
	defer c.close()
	for _, part := range cut(hello) {
		c.Write(part)
	}
	c.finish()
	c.wantRest(t, "client", []byte("kept"), finished)
	select {
	case got := <-to:
		if !bytes.Equal(got, hello) {
			t.Errorf("the server got %d bytes that are not the %d of the hello", len(got), len(hello))
		}
	default:
		t.Error("the hello went to another server")
	}
	r := s.record(c)
	wantRecord(t, r, "ok", "")
	if r.Text("sni") != sni || int(r.Num("up")) != len(hello) || r.Text("pattern") != "pass-through" {
		t.Errorf("the record is %v", r)
	}
}

// wantTerminated makes a handshake whose hello is cut.
func (s *splicing) wantTerminated(t *testing.T, cfg *tls.Config, cut cutting) {
	t.Helper()
	c := &pieces{TCPConn: dial(t, s.Addr("")).(*net.TCPConn), cut: cut}
	p := tlsPeer(c, tls.Client, cfg)
	defer p.close()
	s.wantServed(t, p)
}

// cutting gives the parts in which a hello is sent.
type cutting func(hello []byte) [][]byte

// pieces sends what is written first in pieces.
type pieces struct {
	*net.TCPConn
	cut cutting
}

func (p *pieces) Write(b []byte) (int, error) {
	if p.cut == nil {
		return p.TCPConn.Write(b)
	}
	parts := p.cut(b)
	p.cut = nil
	for _, part := range parts {
		if n, err := p.TCPConn.Write(part); err != nil {
			return n, err
		}
	}
	return len(b), nil
}

func whole(hello []byte) [][]byte { return [][]byte{hello} }

func at(k int) cutting {
	return func(hello []byte) [][]byte { return [][]byte{hello[:k], hello[k:]} }
}

func inPieces(n int) cutting {
	return func(hello []byte) [][]byte {
		var parts [][]byte
		for i := range n {
			parts = append(parts, hello[i*len(hello)/n:(i+1)*len(hello)/n])
		}
		return parts
	}
}

func byteByByte(hello []byte) [][]byte { return inPieces(len(hello))(hello) }

// inRecords puts a hello into records of n bytes of it.
func inRecords(n int, hello []byte) []byte {
	var msg, out []byte
	for rest := hello; len(rest) > 0; {
		size := int(rest[3])<<8 | int(rest[4])
		msg, rest = append(msg, rest[recordHead:recordHead+size]...), rest[recordHead+size:]
	}
	for len(msg) > 0 {
		k := min(n, len(msg))
		out = append(out, hello[0], hello[1], hello[2], byte(k>>8), byte(k))
		out, msg = append(out, msg[:k]...), msg[k:]
	}
	return out
}

func named(sni string, groups ...tls.CurveID) *tls.Config {
	return &tls.Config{ServerName: sni, CurvePreferences: groups, InsecureSkipVerify: true}
}

// F-13: a hello split in two at every byte.
func TestHelloSplitAnywhere(t *testing.T) {
	site := newSite(t)
	t.Run("pass-through", func(t *testing.T) {
		t.Parallel()
		s := startSplicing(t, site)
		for name, hello := range map[string][]byte{
			"classic":      recorded(t, named("b.test", tls.X25519)),
			"post-quantum": recorded(t, named("b.test")),
		} {
			step := 1 + len(hello)/400 // a step of one, but in the key share of a post-quantum hello
			for k := 1; k < len(hello) && !t.Failed(); k++ {
				if k < 300 || k > len(hello)-100 || k%step == 0 {
					s.wantPassed(t, s.b, "b.test", hello, at(k))
				}
			}
			if t.Failed() {
				t.Fatalf("with the %s hello", name)
			}
		}
	})
	t.Run("offload", func(t *testing.T) {
		t.Parallel()
		s := startSplicing(t, site)
		cfg := s.clientConfig(tls.VersionTLS13)
		for k := 1; k < len(recorded(t, cfg)) && !t.Failed(); k++ {
			s.wantTerminated(t, cfg, at(k))
		}
	})
}

// F-13: hellos of every shape and in any number of parts.
func TestHelloShapes(t *testing.T) {
	s := startSplicing(t, newSite(t))
	grease := func(sni string) []byte {
		return rawHello(greased, serverName(sni), versions13, groups13(t), grease1, schemes, grease2)
	}
	large := func(sni string) *tls.Config {
		c := named(sni)
		for range 248 {
			c.NextProtos = append(c.NextProtos, strings.Repeat("x", 255))
		}
		return c
	}
	padded := rawHello(plain, serverName("b.test"), versions13, groups13(t), schemes)
	padded = rawHello(plain, serverName("b.test"), versions13, groups13(t), schemes, ext(21, make([]byte, 64<<10-len(padded)+recordHead-4)))
	for _, row := range []struct {
		name  string
		hello []byte
		sni   string
		cut   cutting
	}{
		{"classic", recorded(t, named("b.test", tls.X25519)), "b.test", whole},
		{"post-quantum, two segments", recorded(t, named("b.test")), "b.test", at(1448)},
		{"two hundred pieces", recorded(t, named("b.test")), "b.test", inPieces(200)},
		{"byte by byte", recorded(t, named("b.test")), "b.test", byteByByte},
		{"records of one byte", inRecords(1, recorded(t, named("b.test"))), "b.test", whole},
		{"records of one byte, byte by byte", inRecords(1, recorded(t, named("b.test", tls.X25519))), "b.test", byteByByte},
		{"records of 100 bytes, in pieces", inRecords(100, recorded(t, named("b.test"))), "b.test", inPieces(33)},
		{"64 KiB", recorded(t, large("b.test")), "b.test", whole},
		{"64 KiB to the byte", padded, "b.test", whole},
		{"64 KiB to the byte, in pieces", padded, "b.test", inPieces(200)},
		{"GREASE", grease("b.test"), "b.test", whole},
		{"GREASE in pieces", grease("b.test"), "b.test", inPieces(50)},
		{"upper case", rawHello(plain, serverName("B.Test"), versions13, groups13(t), schemes), "b.test", whole},
		{"another name", recorded(t, named("c.test")), "c.test", whole},
		{"no name", rawHello(plain, versions13, groups13(t), schemes), "", whole},
		{"no extension", rawHello(plain), "", whole},
		{"more behind it", append(recorded(t, named("b.test")), bytesOf(1, 200_000)...), "b.test", whole},
	} {
		t.Run(row.name, func(t *testing.T) {
			to := s.other
			if row.sni == "b.test" {
				to = s.b
			}
			s.wantPassed(t, to, row.sni, row.hello, row.cut)
		})
	}
	for name, cut := range map[string]cutting{
		"whole": whole, "two segments": at(1448), "two hundred pieces": inPieces(200), "byte by byte": byteByByte,
		"records of 3 bytes":    func(hello []byte) [][]byte { return whole(inRecords(3, hello)) },
		"records, byte by byte": func(hello []byte) [][]byte { return byteByByte(inRecords(50, hello)) },
	} {
		t.Run("offload/"+name, func(t *testing.T) { s.wantTerminated(t, named("a.test"), cut) })
	}
	t.Run("offload/64 KiB", func(t *testing.T) { s.wantTerminated(t, large("a.test"), inPieces(7)) })
	t.Run("offload/GREASE", func(t *testing.T) {
		c := plainPeer(dial(t, s.Addr("")))
		c.Write(grease("a.test"))
		head := make([]byte, recordHead+1)
		if _, err := io.ReadFull(c, head); err != nil || head[0] != 22 || head[5] != 2 {
			t.Errorf("where a ServerHello should begin came % x and %v", head, err)
		}
	})
}

// The hellos that crypto/tls does not make.

var (
	plain   = []byte{0x13, 0x01, 0x13, 0x03, 0xc0, 0x2b, 0xc0, 0x2f}
	greased = append([]byte{0x5a, 0x5a}, plain...)

	grease1    = ext(0x3a3a, nil)
	grease2    = ext(0xeaea, []byte{0})
	versions13 = ext(43, vec(1, []byte{0x7a, 0x7a, 0x03, 0x04, 0x03, 0x03}))
	schemes    = ext(13, vec(2, []byte{0x04, 0x03, 0x08, 0x04}))
)

func groups13(t *testing.T) []byte {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	share := vec(2, []byte{0xda, 0xda}, vec(2, []byte{0}), []byte{0x00, 0x1d}, vec(2, key.PublicKey().Bytes()))
	return append(ext(10, vec(2, []byte{0xda, 0xda, 0x00, 0x1d, 0x00, 0x17})), ext(51, share)...)
}

func serverName(name string) []byte { return ext(0, vec(2, []byte{0}, vec(2, []byte(name)))) }

func ext(id uint16, body []byte) []byte {
	return append([]byte{byte(id >> 8), byte(id)}, vec(2, body)...)
}

// vec is parts behind their length, of that many bytes.
func vec(size int, parts ...[]byte) []byte {
	body := bytes.Join(parts, nil)
	head := make([]byte, size)
	for i, n := size-1, len(body); i >= 0; i, n = i-1, n>>8 {
		head[i] = byte(n)
	}
	return append(head, body...)
}

// rawHello is a ClientHello in as many records as it takes.
func rawHello(ciphers []byte, exts ...[]byte) []byte {
	body := [][]byte{{3, 3}, make([]byte, 32), vec(1, make([]byte, 32)), vec(2, ciphers), vec(1, []byte{0})}
	rand.Read(body[1])
	if len(exts) > 0 {
		body = append(body, vec(2, exts...))
	}
	msg := append([]byte{1}, vec(3, body...)...)
	var out []byte
	for len(msg) > 0 {
		k := min(1<<14, len(msg))
		out, msg = append(append(out, 22, 3, 1), vec(2, msg[:k])...), msg[k:]
	}
	return out
}

func alertRecord(number byte) []byte { return []byte{21, 3, 3, 0, 2, 2, number} }

// What is no hello gets its answer on the wire, then a FIN, and its record.
func TestHelloBad(t *testing.T) {
	site := newSite(t)
	real := recorded(t, named("a.test"))
	huge := rawHello(plain, serverName("a.test"), ext(21, make([]byte, 65_500)))
	const peek = 2 * time.Second
	for _, row := range []struct {
		name   string
		send   func(c *peer)
		answer []byte // what must come, whole; nil is nothing
		reason string
		took   time.Duration
	}{
		{"never ends", func(c *peer) { c.Write(real[:len(real)/2]) }, nil, "hello_timeout", peek},
		{"drips", func(c *peer) { drip(c, real[:len(real)-1]) }, nil, "hello_timeout", peek},
		{"never begins", func(c *peer) {}, nil, "hello_timeout", peek},
		{"larger than 64 KiB", func(c *peer) { c.Write(huge) }, alertRecord(50), "hello_too_large", 0},
		{"says it is larger", func(c *peer) { c.Write([]byte{22, 3, 1, 0x40, 0, 1, 1, 0, 0}) }, alertRecord(50), "hello_too_large", 0},
		{"too many records", func(c *peer) { c.Write(inRecords(1, huge)) }, alertRecord(50), "hello_too_large", 0},
		{"empty record", func(c *peer) { c.Write([]byte{22, 3, 1, 0, 0}) }, alertRecord(50), "hello_malformed", 0},
		{"broken form", func(c *peer) { c.Write([]byte{22, 3, 1, 0, 8, 1, 0, 0, 4, 3, 3, 0, 0}) }, alertRecord(50), "hello_malformed", 0},
		{"rubbish", func(c *peer) { c.Write(bytes.Repeat([]byte{0xff}, 500)) }, alertRecord(10), "not_tls", 0},
		{"SSH", func(c *peer) { io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n") }, alertRecord(10), "not_tls", 0},
		{"SSLv2", func(c *peer) { c.Write([]byte{0x80, 0x2e, 1, 0, 2}) }, alertRecord(10), "not_tls", 0},
		{"comes and goes", func(c *peer) { c.finish() }, nil, "client_gone", 0},
		{"goes within it", func(c *peer) { c.Write(real[:300]); c.finish() }, nil, "client_gone", 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := &way{site: site, in: true}
			w.Program = start(t, w.args(serving(t, echo), "--timeouts-peek", peek.String())...)
			before := descriptors(t, w.Program)
			began := time.Now()
			c := plainPeer(dial(t, w.Addr("")))
			row.send(c)
			c.wantRest(t, "client", row.answer, finished)
			wantTook(t, time.Since(began), row.took)
			c.close()
			wantRecord(t, w.record(c), row.reason, "peek")
			wantDescriptors(t, w.Program, before)
			w.wantServed(t, tlsPeer(dial(t, w.Addr("")), tls.Client, w.clientConfig(tls.VersionTLS13)))
		})
	}
}

// drip sends a byte in each hundredth of a second for as long as somebody takes it.
func drip(c *peer, b []byte) {
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := range b {
			<-tick.C
			if _, err := c.Write(b[i : i+1]); err != nil {
				return
			}
		}
	}()
}

// Plain HTTP on a TLS port gets an answer that its sender can read.
func TestHelloIsPlainHTTP(t *testing.T) {
	site := newSite(t)
	w := &way{site: site, in: true}
	w.Program = start(t, w.args(serving(t, echo))...)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"POST /x HTTP/1.0\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000),
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		c := plainPeer(dial(t, w.Addr("")))
		go io.WriteString(c, request)
		answer, how := c.rest()
		if !strings.HasPrefix(string(answer), "HTTP/1.0 400 ") || !strings.Contains(string(answer), "https://") || how != finished {
			t.Errorf("to %.10q came %q, then %s", request, answer, how)
		}
		c.close()
		wantRecord(t, w.record(c), "plain_http", "peek")
	}
	if n := len(w.Flows(3)); n != 3 {
		t.Errorf("%d records", n)
	}
}
