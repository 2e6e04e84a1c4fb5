package secure

import (
	"bytes"
	"context"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/protocol/alert"

	"sallyport/flow"
	"sallyport/internal/testnet"
	"sallyport/wire"
)

// What is read of the engine past its API. Where this fails, the version of
// github.com/pion/dtls has changed, and datagrams.go and dtlshandshake.go with it must.
func TestDTLSEngineFits(t *testing.T) {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	engine, err := dtls.ClientWithOptions(socket, socket.LocalAddr(), dtls.WithInsecureSkipVerify(true))
	if err != nil {
		t.Fatal(err)
	}
	state := fieldOf(engine, "state")
	if !state.IsValid() {
		t.Fatal("dtls.Conn has no struct state any more")
	}
	for name, want := range map[string]reflect.Type{"cookie": bytesType, "remoteConnectionID": bytesType} {
		if f := state.FieldByName(name); !f.IsValid() || f.Type() != want {
			t.Errorf("its state has no %s of %v any more", name, want)
		}
	}
	if f := state.FieldByName("namedCurve"); !f.IsValid() || f.Kind() != reflect.Uint16 {
		t.Error("its state has no number namedCurve any more: a session's group would not be recorded")
	}
	if _, err := cookieOf(engine); err != nil {
		t.Error(err)
	}
	if parts, ok := partsOf(engine); !ok || parts[0].Int() != 0 || parts[1].Int() != 0 {
		t.Error("it does not count the parts of messages in fragmentBuffer any more: they would not be bounded")
	}
	if held := heldOf(engine); held == nil || held() != 0 {
		t.Error("it has no channel decrypted any more: an association could not rest after a forged record")
	}
	if fieldOf(engine, "no such thing").IsValid() || fieldOf(engine, "lock").Kind() == reflect.Chan {
		t.Error("fieldOf gives what is not there")
	}
}

// The engine's log is how its alerts are heard: in its words.
func TestDTLSEarKnowsAllAlerts(t *testing.T) {
	for n := range 256 {
		for _, level := range []alert.Level{alert.Warning, alert.Fatal} {
			var e ear
			a := alert.Alert{Level: level, Description: alert.Description(n)}
			e.Tracef("%s: <- %s", "client", a.String())
			if n == 0 && (!e.goodbye.Load() || e.fatal.Load() != 0) {
				t.Errorf("%s: no goodbye", a.String())
			}
			known := a.Description.String() != "Invalid alert description"
			if n > 0 && known && (e.fatal.Load() == uint32(n)+1) != (level == alert.Fatal) {
				t.Errorf("%s: heard %d", a.String(), e.fatal.Load())
			}
		}
	}
}

// The cookie is the client's own: what it has shown to the acceptor is what the
// transcript has, and the engine's HelloVerifyRequest is never seen.
func TestDTLSCookieIsPlanted(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	r := testnet.Relay(t, l.at(), testnet.Weather{})
	var answers lockedBuffer
	r.Through(func(_ int, w testnet.Way, _ int, p []byte) [][]byte {
		if w == testnet.ToClient {
			for rest := p; len(rest) > 0; {
				rec, after, err := wire.ReadRecord(rest, 0)
				if err != nil {
					break
				}
				if rest = after; rec.Epoch == 0 && rec.Type == wire.TypeHandshake {
					answers.Write(rec.Body[:1])
				}
			}
		}
		return [][]byte{p}
	})
	client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
	server := l.next()
	talkDTLS(t, server, client)
	if got := []byte(answers.String()); bytes.Count(got, []byte{msgHelloVerify}) != 1 || got[0] != msgHelloVerify || got[1] != msgServerHello {
		t.Errorf("the server answered by messages %v", got)
	}
	d := server.c.(*dtlsConn).under
	cookie, err := cookieOf(d.engine)
	if err != nil || !bytes.Equal(cookie, server.f.Hello.Cookie) || len(cookie) != cookieSize || !d.planted {
		t.Errorf("the engine has cookie %x (%v), the client showed %x", cookie, err, server.f.Hello.Cookie)
	}
}

// A hello without a cookie of the acceptor's is not taken for one with.
func TestDTLSHelloPastTheCookieExchange(t *testing.T) {
	s := newSite(t)
	for name, change := range map[string]func(h *wire.Hello) []byte{
		"no cookie":          func(h *wire.Hello) []byte { return h.DTLSRecord(1, 1, nil) },
		"a short cookie":     func(h *wire.Hello) []byte { return h.DTLSRecord(1, 1, []byte("short")) },
		"as another message": func(h *wire.Hello) []byte { return h.DTLSRecord(2, 1, h.Cookie) },
		"no hello":           func(*wire.Hello) []byte { return []byte("rubbish") },
	} {
		t.Run(name, func(t *testing.T) {
			server := NewDTLSServer(s.server)
			l := listenDTLS(t, layerFunc(func(ctx context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
				h := *f.Hello
				return server.Wrap(ctx, f, &heldDatagram{c, c.(*heldDatagram).packets, change(&h)})
			}))
			s.client.Timeout = 100 * time.Millisecond
			client := dialDTLS(t, l.at(), NewDTLSClient(s.client))
			if got := l.next(); got.err == nil || client.err == nil {
				t.Errorf("server %v, client %v", got.err, client.err)
			}
		})
	}
}
