package testca

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"sallyport/internal/ca"
)

// ServerCase is one row about what a server does in TLS. Its certificate is good.
type ServerCase struct {
	ID    string // of INTERCEPTION, IT-01 and on
	Title string
	Want  string // the reason; "" passes
	TLS   string // the preset of to.tls; "" is the default
	ALPN  []string
	Late  bool // the server is well-behaved until it has been told something
	serve func(c net.Conn, cfg *tls.Config) error
}

// Name is one for a subtest.
func (c ServerCase) Name() string { return c.ID + " " + c.Title }

// Reasons that rows about servers have.
const (
	serverAlert     = "server_alert"
	serverNotTLS    = "server_not_tls"
	serverGone      = "server_gone"
	serverTimeout   = "server_handshake_timeout"
	serverProtocol  = "server_protocol_error"
	serverTruncated = "server_truncated"
	rejectedCert    = "server_rejected_our_certificate"
)

// Servers is the table.
func Servers() []ServerCase {
	return slices.Concat(versionServers(), suiteServers(), helloServers(), recordServers(), floodServers(), endingServers(), goodServers())
}

// Running is a faulty server that listens.
type Running struct {
	Addr string

	mu    sync.Mutex
	heard []byte // of what came, in clear
	told  []byte // what came within TLS
}

// Heard is the first of all that came from the network.
func (r *Running) Heard() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.heard)
}

// Told is what came within TLS.
func (r *Running) Told() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.told)
}

const heardAtMost = 64 << 10

// Start has the server listen until done is closed. It is for good.test.
func (c ServerCase) Start(t ca.T, root *ca.Tester, done <-chan struct{}) *Running {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &tls.Config{Certificates: []tls.Certificate{root.Leaf(good).TLS()}, CurvePreferences: []tls.CurveID{tls.X25519}}
	cfg.SetSessionTicketKeys([][32]byte{{1}})
	r := &Running{Addr: l.Addr().String()}
	go func() { <-done; l.Close() }()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(bound))
				_ = c.serve(&heard{conn, r}, cfg.Clone())
			}()
		}
	}()
	return r
}

// heard keeps what comes.
type heard struct {
	net.Conn
	r *Running
}

func (h *heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.r.mu.Lock()
	defer h.r.mu.Unlock()
	if len(h.r.heard) < heardAtMost {
		h.r.heard = append(h.r.heard, p[:n]...)
	}
	return n, err
}

// runningOf finds where to note what is said within TLS.
func runningOf(c net.Conn) *Running {
	switch c := c.(type) {
	case *heard:
		return c.r
	case *splitter:
		return runningOf(c.Conn)
	case *watched:
		return runningOf(c.Conn)
	case *tls.Conn:
		return runningOf(c.NetConn())
	}
	panic(fmt.Sprintf("no server behind a %T", c))
}

// tell waits for a line and keeps it.
func tell(t *tls.Conn) (string, error) {
	line, err := bufio.NewReader(t).ReadString('\n')
	r := runningOf(t)
	r.mu.Lock()
	r.told = append(r.told, line...)
	r.mu.Unlock()
	return line, err
}

// echo is a good server.
func echo(c net.Conn, cfg *tls.Config) error {
	t := tls.Server(c, cfg)
	line, err := tell(t)
	if err != nil {
		return err
	}
	io.WriteString(t, line)
	t.CloseWrite()
	_, err = io.Copy(io.Discard, t)
	return err
}

// with is a server of crypto/tls, otherwise configured.
func with(change func(*tls.Config)) func(net.Conn, *tls.Config) error {
	return func(c net.Conn, cfg *tls.Config) error { change(cfg); return echo(c, cfg) }
}

func only(v uint16) func(net.Conn, *tls.Config) error {
	return with(func(c *tls.Config) { c.MinVersion, c.MaxVersion = v, v })
}

// says is a puppet that hears a ClientHello, sends what make gives, and listens on.
func says(make func(p *puppet) []byte) func(net.Conn, *tls.Config) error {
	return func(c net.Conn, cfg *tls.Config) error {
		p := &puppet{Conn: c}
		if err := p.hear(); err != nil {
			return err
		}
		if _, err := p.Write(make(p)); err != nil {
			return err
		}
		_, err := io.Copy(io.Discard, p)
		return err
	}
}

// answers is a puppet that sends one ServerHello, and the end of its flight.
func answers(h helloOf) func(net.Conn, *tls.Config) error {
	return says(func(*puppet) []byte {
		return record(recordHandshake, min(h.version, tls.VersionTLS12), append(h.bytes(), message(serverHelloDone, nil)...))
	})
}

const aesGCM = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256

func versionServers() []ServerCase {
	ssl2 := []byte{0x80, 0x03, 0x00, 0x00, 0x01} // an SSLv2 error: no cipher in common
	return []ServerCase{
		{ID: "IT-01", Title: "SSLv2", Want: serverNotTLS, serve: says(func(*puppet) []byte { return ssl2 })},
		//lint:ignore SA1019 that it is refused is what is tested
		{ID: "IT-01", Title: "SSLv3", Want: handshakeFailed, serve: answers(helloOf{version: tls.VersionSSL30, suite: 0x002f})},
		{ID: "IT-02", Title: "TLS 1.0 alone", Want: serverAlert, serve: only(tls.VersionTLS10)},
		{ID: "IT-02", Title: "TLS 1.1 alone", Want: serverAlert, serve: only(tls.VersionTLS11)},
		{ID: "IT-02", Title: "TLS 1.0 whatever was offered", Want: handshakeFailed, serve: answers(helloOf{version: tls.VersionTLS10, suite: 0xc009})},
		{ID: "IT-02", Title: "TLS 1.1 whatever was offered", Want: handshakeFailed, serve: answers(helloOf{version: tls.VersionTLS11, suite: 0xc009})},
		{ID: "IT-02", Title: "TLS 1.0 where that is asked for", TLS: "old", serve: only(tls.VersionTLS10)},
		{ID: "IT-02", Title: "a version of the future", Want: handshakeFailed, serve: answers(helloOf{version: 0x0305, suite: aesGCM})},
		{ID: "IT-10", Title: "downgrade to 1.2 by who speaks 1.3", Want: handshakeFailed, serve: answers(helloOf{version: tls.VersionTLS12, suite: aesGCM, random: sentinel(1)})},
		{ID: "IT-10", Title: "downgrade to 1.1 by who speaks 1.2", Want: handshakeFailed, serve: answers(helloOf{version: tls.VersionTLS12, suite: aesGCM, random: sentinel(0)})},
		{ID: "IT-10", Title: "downgrade to 1.1 where that is taken", Want: handshakeFailed, TLS: "old", serve: answers(helloOf{version: tls.VersionTLS11, suite: 0xc009, random: sentinel(0)})},
	}
}

// sentinel is the random of RFC 8446, section 4.1.3.
func sentinel(b byte) []byte { return append(make([]byte, 24), 'D', 'O', 'W', 'N', 'G', 'R', 'D', b) }

func suiteServers() (list []ServerCase) {
	for _, s := range []struct {
		id, name string
		suite    uint16
	}{
		{"IT-03", "RSA_EXPORT_WITH_RC4_40_MD5", 0x0003}, {"IT-03", "DHE_RSA_EXPORT_WITH_DES40_CBC_SHA", 0x0014},
		{"IT-03", "DHE_RSA_WITH_AES_128_CBC_SHA", 0x0033}, {"IT-03", "DHE_RSA_WITH_AES_128_GCM_SHA256", 0x009e},
		{"IT-04", "RSA_WITH_RC4_128_MD5", 0x0004}, {"IT-04", "ECDHE_ECDSA_WITH_RC4_128_SHA", 0xc007},
		{"IT-04", "RSA_WITH_DES_CBC_SHA", 0x0009}, {"IT-04", "ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", 0xc012},
		{"IT-04", "NULL_WITH_NULL_NULL", 0x0000}, {"IT-04", "RSA_WITH_NULL_SHA256", 0x003b}, {"IT-04", "ECDHE_ECDSA_WITH_NULL_SHA", 0xc006},
		{"IT-04", "DH_anon_WITH_AES_128_GCM_SHA256", 0x00a6}, {"IT-04", "ECDH_anon_WITH_AES_128_CBC_SHA", 0xc018},
		{"IT-05", "RSA_WITH_AES_128_GCM_SHA256", 0x009c},
		{"IT-06", "ECDHE_ECDSA_WITH_AES_128_CBC_SHA", 0xc009}, {"IT-06", "ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", 0xc023},
	} {
		list = append(list, ServerCase{ID: s.id, Title: s.name + " never offered", Want: handshakeFailed,
			serve: answers(helloOf{version: tls.VersionTLS12, suite: s.suite})})
	}
	return list
}

// helloServers have something in their ServerHello that nobody has asked for.
func helloServers() []ServerCase {
	alpn := extensionBytes(16, append([]byte{0, 3, 2}, "h2"...))
	again := func(p *puppet) []byte {
		// The group is one that was offered without a key share.
		ext := append(extensionBytes(43, []byte{3, 4}), extensionBytes(51, []byte{0, byte(tls.CurveP256)})...)
		return record(recordHandshake, tls.VersionTLS12, helloOf{version: tls.VersionTLS12, random: retry, session: p.sessionID(),
			suite: tls.TLS_AES_128_GCM_SHA256, extensions: ext}.bytes())
	}
	return []ServerCase{
		{ID: "IT-07", Title: "compression", Want: handshakeFailed, serve: answers(helloOf{version: tls.VersionTLS12, suite: aesGCM, compression: 1})},
		{ID: "IT-11", Title: "one HelloRetryRequest after the other", Want: handshakeFailed, serve: says(func(p *puppet) []byte {
			return slices.Concat(again(p), again(p), again(p))
		})},
		{ID: "IT-12", Title: "ALPN where none was offered", Want: handshakeFailed, serve: answers(helloOf{version: tls.VersionTLS12, suite: aesGCM, extensions: alpn})},
		{ID: "IT-12", Title: "ALPN other than offered", Want: handshakeFailed, ALPN: []string{"http/1.1"},
			serve: answers(helloOf{version: tls.VersionTLS12, suite: aesGCM, extensions: alpn})},
		{ID: "IT-12", Title: "no ALPN in common", Want: serverAlert, ALPN: []string{"http/1.1"}, serve: with(func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} })},
		{ID: "IT-12", Title: "no ALPN where some was offered", ALPN: []string{"http/1.1"}, serve: echo},
		{ID: "IC-34", Title: "SHA-1 in the handshake", Want: handshakeFailed, serve: shaOne},
	}
}

// shaOne signs its key share with ECDSA and SHA-1.
func shaOne(c net.Conn, cfg *tls.Config) error {
	p := &puppet{Conn: c}
	if err := p.hear(); err != nil {
		return err
	}
	cert := cfg.Certificates[0]
	hello := helloOf{version: tls.VersionTLS12, suite: aesGCM, extensions: []byte{}}
	params, err := sha1Params(cert.PrivateKey, p.hello[6:38], hello.bytes()[6:38])
	if err != nil {
		return err
	}
	var list []byte
	for _, der := range cert.Certificate {
		list = append(append(list, byte(len(der)>>16), byte(len(der)>>8), byte(len(der))), der...)
	}
	list = append([]byte{byte(len(list) >> 16), byte(len(list) >> 8), byte(len(list))}, list...)
	flight := slices.Concat(hello.bytes(), message(certificateMsg, list), message(serverKeyExchange, params), message(serverHelloDone, nil))
	if _, err := p.Write(record(recordHandshake, tls.VersionTLS12, flight)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, p)
	return err
}

var errEnough = errors.New("the program has seen all of a flood")

func put16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }
