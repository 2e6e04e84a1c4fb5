package testca

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"time"
)

// sha1Params is a ServerKeyExchange over X25519, signed with ecdsa_sha1 (0x0203).
func sha1Params(key crypto.PrivateKey, client, server []byte) ([]byte, error) {
	share, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	params := append([]byte{3, 0, byte(tls.X25519), 32}, share.PublicKey().Bytes()...)
	digest := sha1.Sum(slices.Concat(client, server, params))
	sig, err := key.(crypto.Signer).Sign(rand.Reader, digest[:], crypto.SHA1)
	if err != nil {
		return nil, err
	}
	return slices.Concat(params, []byte{2, 3}, put16(len(sig)), sig), nil
}

// recordServers break the record layer before there are keys.
func recordServers() []ServerCase {
	hello := helloOf{version: tls.VersionTLS12, suite: aesGCM}.bytes()
	raw := func(b []byte) func(net.Conn, *tls.Config) error { return says(func(*puppet) []byte { return b }) }
	rec := func(typ byte, body []byte) []byte { return record(typ, tls.VersionTLS12, body) }
	return []ServerCase{
		{ID: "IT-11", Title: "heartbeat", Want: serverNotTLS, serve: raw(rec(recordHeartbeat, []byte{1, 0x40, 0, 'x'}))},
		{ID: "IT-11", Title: "heartbeat behind the ServerHello", Want: handshakeFailed, serve: raw(append(rec(recordHandshake, hello), rec(recordHeartbeat, []byte{1, 0x40, 0, 'x'})...))},
		{ID: "IT-11", Title: "a record of 20000 bytes", Want: serverNotTLS, serve: raw(rec(recordHandshake, make([]byte, 20000)))},
		{ID: "IT-11", Title: "a message of 16 MiB", Want: handshakeFailed, serve: raw(rec(recordHandshake, append([]byte{serverHello, 0xff, 0xff, 0xff}, make([]byte, 16000)...)))},
		{ID: "IT-11", Title: "empty records", Want: handshakeFailed, serve: raw(bytes.Repeat(rec(recordHandshake, nil), 100_000))},
		{ID: "IT-11", Title: "warnings ahead of the ServerHello", Want: handshakeFailed, serve: raw(bytes.Repeat(rec(recordAlert, []byte{1, 90}), 100_000))},
		{ID: "IT-11", Title: "ChangeCipherSpec ahead of the ServerHello", Want: serverNotTLS, serve: raw(bytes.Repeat(rec(recordCCS, []byte{1}), 100_000))},
		{ID: "IT-11", Title: "data ahead of the ServerHello", Want: serverNotTLS, serve: raw(rec(recordData, []byte("data")))},
		{ID: "IT-11", Title: "HTTP", Want: serverNotTLS, serve: raw([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))},
		{ID: "IT-11", Title: "the server's flight without a ServerHello", Want: handshakeFailed, serve: raw(rec(recordHandshake, message(serverHelloDone, nil)))},
		{ID: "IT-11", Title: "no Certificate in it", Want: handshakeFailed, serve: raw(rec(recordHandshake, append(hello, message(serverHelloDone, nil)...)))},
	}
}

// floodServers behave until the handshake is done and they were told something.
func floodServers() []ServerCase {
	ticket := message(newSessionTicket, slices.Concat(make([]byte, 8), []byte{1, 0, 0, 4, 't', 'i', 'c', 'k', 0, 0}))
	flood := func(version uint16, each func(*sealer) []byte) func(net.Conn, *tls.Config) error {
		return func(c net.Conn, cfg *tls.Config) error {
			cfg.MinVersion, cfg.MaxVersion = version, version
			t, s, err := shake(c, cfg)
			if err != nil {
				return err
			}
			if _, err := tell(t); err != nil {
				return err
			}
			if s.flood(1_000_000, func() []byte { return each(s) }) == 1_000_000 {
				return errEnough
			}
			return nil
		}
	}
	v12, v13 := uint16(tls.VersionTLS12), uint16(tls.VersionTLS13)
	many := func(typ byte, content []byte) func(*sealer) []byte {
		return func(s *sealer) []byte {
			var out []byte
			for range 32 {
				out = append(out, s.seal(typ, content)...)
			}
			return out
		}
	}
	updates := func(request byte) func(*sealer) []byte {
		return func(s *sealer) []byte {
			b := s.seal(recordHandshake, message(keyUpdateMsg, []byte{request}))
			s.update()
			return b
		}
	}
	row := func(title string, version uint16, each func(*sealer) []byte) ServerCase {
		return ServerCase{ID: "IT-11", Title: title, Want: serverProtocol, Late: true, serve: flood(version, each)}
	}
	return []ServerCase{
		row("KeyUpdate without end", v13, updates(0)),
		row("KeyUpdate without end, each to be answered", v13, updates(1)),
		row("NewSessionTicket without end", v13, many(recordHandshake, ticket)),
		row("empty records without end, 1.3", v13, many(recordData, nil)),
		row("warnings without end, 1.3", v13, many(recordAlert, []byte{1, 90})),
		row("heartbeat within TLS, 1.3", v13, many(recordHeartbeat, []byte{1, 0x40, 0, 'x'})),
		row("a ticket of 1 MiB", v13, func(s *sealer) []byte {
			return s.seal(recordHandshake, append([]byte{newSessionTicket, 0x10, 0, 0}, make([]byte, 8000)...))
		}),
		row("empty records without end, 1.2", v12, many(recordData, nil)),
		row("warnings without end, 1.2", v12, many(recordAlert, []byte{1, 90})),
		row("heartbeat within TLS, 1.2", v12, many(recordHeartbeat, []byte{1, 0x40, 0, 'x'})),
		{ID: "IT-08", Title: "HelloRequest without end", Want: serverProtocol, Late: true, serve: flood(v12, many(recordHandshake, message(helloRequest, nil)))},
	}
}

// endingServers leave, or say nothing.
func endingServers() []ServerCase {
	reset := func(c net.Conn) error {
		c.(*heard).Conn.(*net.TCPConn).SetLinger(0)
		return c.Close()
	}
	half := record(recordHandshake, tls.VersionTLS12, helloOf{version: tls.VersionTLS12, suite: aesGCM}.bytes())
	cut := func(version uint16) func(net.Conn, *tls.Config) error {
		return func(c net.Conn, cfg *tls.Config) error {
			cfg.MaxVersion = version
			_, err := tell(tls.Server(c, cfg))
			return err
		}
	}
	return []ServerCase{
		{ID: "IT-14", Title: "leaves without close_notify", Want: serverTruncated, Late: true, serve: cut(tls.VersionTLS13)},
		{ID: "IT-14", Title: "leaves without close_notify, TLS 1.2", Want: serverTruncated, Late: true, serve: cut(tls.VersionTLS12)},
		{ID: "IT-16", Title: "leaves at once", Want: serverGone, serve: func(net.Conn, *tls.Config) error { return nil }},
		{ID: "IT-16", Title: "resets in place of a ServerHello", Want: serverGone, serve: func(c net.Conn, _ *tls.Config) error {
			p := &puppet{Conn: c}
			if err := p.hear(); err != nil {
				return err
			}
			return reset(c)
		}},
		{ID: "IT-16", Title: "leaves in its ServerHello", Want: serverGone, serve: func(c net.Conn, _ *tls.Config) error {
			_, err := c.Write(half[:20])
			return err
		}},
		{ID: "IT-16", Title: "resets behind its ServerHello", Want: serverGone, serve: func(c net.Conn, _ *tls.Config) error {
			p := &puppet{Conn: c}
			if err := p.hear(); err != nil {
				return err
			}
			c.Write(half)
			return reset(c)
		}},
		{ID: "IT-16", Title: "says nothing", Want: serverTimeout, serve: says(func(*puppet) []byte { return nil })},
		{ID: "IT-16", Title: "says a byte each moment", Want: serverTimeout, serve: func(c net.Conn, _ *tls.Config) error {
			for i := range half {
				if _, err := c.Write(half[i : i+1]); err != nil {
					return err
				}
				time.Sleep(100 * time.Millisecond) // as slow as it is to be
			}
			_, err := io.Copy(io.Discard, c)
			return err
		}},
	}
}

// goodServers are odd and not wrong.
func goodServers() []ServerCase {
	split := func(segment, fragment int, version uint16) func(net.Conn, *tls.Config) error {
		return func(c net.Conn, cfg *tls.Config) error {
			cfg.MaxVersion = version
			return echo(&splitter{Conn: c, segment: segment, fragment: fragment}, cfg)
		}
	}
	v12, v13 := uint16(tls.VersionTLS12), uint16(tls.VersionTLS13)
	return []ServerCase{
		{ID: "IT-13", Title: "a byte a segment, 1.2", serve: split(1, 0, v12)},
		{ID: "IT-13", Title: "a byte a segment, 1.3", serve: split(1, 0, v13)},
		{ID: "IT-13", Title: "a byte of handshake a record, 1.2", serve: split(0, 1, v12)},
		{ID: "IT-13", Title: "a byte of handshake a record, 1.3", serve: split(0, 1, v13)},
		{ID: "IT-13", Title: "three bytes of handshake a record", serve: split(0, 3, v12)},
		{ID: "IT-13", Title: "seven bytes of handshake a record, two a segment", serve: split(2, 7, v12)},
		{ID: "IC-54", Title: "a certificate of ours is asked for", serve: with(func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert })},
		{ID: "IC-54", Title: "a certificate of ours is required", Want: rejectedCert, serve: with(func(c *tls.Config) { // by TLS 1.3 this is told too late for the table
			c.MaxVersion, c.ClientAuth = v12, tls.RequireAnyClientCert
		})},
		{ID: "IT-15", Title: "TLS 1.3 alone", serve: only(v13)},
		{ID: "IT-15", Title: "TLS 1.2 alone", serve: only(v12)},
		{ID: "IT-15", Title: "post-quantum alone", serve: with(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768} })},
		{ID: "IT-15", Title: "P-384 alone, by a HelloRetryRequest", serve: with(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP384} })},
		{ID: "IT-06", Title: "CBC alone where that is asked for", TLS: "old", serve: with(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = v12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		})},
		{ID: "IT-06", Title: "CBC alone", Want: serverAlert, serve: with(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = v12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		})},
	}
}
