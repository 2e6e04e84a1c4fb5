package secure

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/internal/testnet"
	"sallyport/transport"
	"sallyport/wire"
)

// movable is a server with connection IDs behind a NAT, and a client of the engine's.
func movable(t *testing.T, opts ...dtls.ClientOption) (*side, *dtls.Conn, *testnet.LossyRelay, *listener) {
	t.Helper()
	s := newSite(t)
	s.server.CID = true
	l := listenDTLS(t, NewDTLSServer(s.server))
	r := testnet.Relay(t, l.at(), testnet.Weather{})
	p, err := pionClient(t, r.Addr(), opts...)
	server := l.next()
	if err != nil || server.err != nil {
		t.Fatalf("server %v, client %v", server.err, err)
	}
	return server, p, r, l
}

func (s *side) at() netip.AddrPort { return s.c.RemoteAddr().(*net.UDPAddr).AddrPort() }

// pionHears is hears for the engine.
func pionHears(t *testing.T, p *dtls.Conn, want string) {
	t.Helper()
	p.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 8192)
	if n, err := p.Read(b); err != nil || string(b[:n]) != want {
		t.Fatalf("the client read %q, %v, want %q", b[:n], err, want)
	}
}

func pionSays(t *testing.T, p *dtls.Conn, text string) {
	t.Helper()
	if _, err := p.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// A client whose port changes goes on, as often as it likes.
func TestDTLSConnectionIDs(t *testing.T) {
	for name, generate := range map[string]func() []byte{
		"it wants none itself": dtls.OnlySendCIDGenerator(), "of 3 bytes": dtls.RandomCIDGenerator(3), "of 20 bytes": dtls.RandomCIDGenerator(20),
	} {
		t.Run(name, func(t *testing.T) {
			server, p, r, _ := movable(t, dtls.WithConnectionIDGenerator(generate))
			for range 4 {
				pionSays(t, p, "up")
				server.hears(t, "up")
				eventually(t, "the server to follow its client", func() bool { return server.at() == r.Upstream(0) })
				server.says(t, "down")
				pionHears(t, p, "down")
				r.Rebind()
			}
		})
	}
}

// DT-08: without an ID a record from elsewhere is nobody's.
func TestDTLSWithoutConnectionIDNobodyMoves(t *testing.T) {
	server, p, r, l := movable(t)
	pionSays(t, p, "up")
	server.hears(t, "up")
	before := server.at()
	r.Rebind()
	pionSays(t, p, "from elsewhere")
	eventually(t, "a record of nobody's", func() bool { return l.Counters()[transport.PacketsNoAssociation].Load() == 1 })
	if server.at() != before {
		t.Errorf("the server takes its client to be at %v", server.at())
	}
	server.c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := server.c.Read(make([]byte, 100)); err == nil {
		t.Errorf("it got %d bytes", n)
	}
}

// tapped notes what a client sends, and can keep the last of it back.
type tapped struct {
	mu   sync.Mutex
	sent [][]byte
	keep bool
}

func (k *tapped) through(_ int, w testnet.Way, _ int, p []byte) [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if w == testnet.ToServer {
		k.sent = append(k.sent, bytes.Clone(p))
		if k.keep {
			return nil
		}
	}
	return [][]byte{p}
}

func (k *tapped) keeping(keep bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keep = keep
}

func (k *tapped) last(t *testing.T, n int) []byte {
	t.Helper()
	var last []byte
	eventually(t, "records to keep", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		if len(k.sent) >= n {
			last = k.sent[n-1]
		}
		return last != nil
	})
	return last
}

func (k *tapped) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.sent)
}

// Who sends an old record once more, or one that is not authentic, from elsewhere
// gains nothing: neither does the application get it, nor does the peer move.
func TestDTLSReplayFromElsewhereMovesNobody(t *testing.T) {
	server, p, r, l := movable(t, dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()))
	var k tapped
	r.Through(k.through)
	pionSays(t, p, "first")
	server.hears(t, "first")
	old := k.last(t, 1)
	pionSays(t, p, "second")
	server.hears(t, "second")
	newest := k.last(t, 2)
	forged := bytes.Clone(newest)
	forged[10] += 50 // a later number, which it is not
	elsewhere, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(l.at()))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	for range 5 {
		elsewhere.Write(old)
		elsewhere.Write(newest)
		elsewhere.Write(forged)
		pionSays(t, p, "on")
		server.hears(t, "on")
		if server.at() != r.Upstream(0) {
			t.Fatalf("the server takes its client to be at %v", server.at())
		}
		server.says(t, "answer")
		pionHears(t, p, "answer")
	}
	elsewhere.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := elsewhere.Read(make([]byte, 100)); err == nil {
		t.Errorf("a stranger got %d bytes", n)
	}
}

// An authentic record that overtook others and comes from elsewhere is taken, since
// it is new, but it moves nobody (RFC 9146, section 6).
func TestDTLSOlderRecordFromElsewhereMovesNobody(t *testing.T) {
	server, p, r, l := movable(t, dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()))
	var k tapped
	r.Through(k.through)
	k.keeping(true)
	pionSays(t, p, "held up")
	late := k.last(t, 1)
	k.keeping(false)
	pionSays(t, p, "newer")
	server.hears(t, "newer")
	elsewhere, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(l.at()))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	elsewhere.Write(late)
	server.hears(t, "held up")
	server.says(t, "answer")
	pionHears(t, p, "answer")
	if server.at() != r.Upstream(0) {
		t.Errorf("the server takes its client to be at %v", server.at())
	}
}

// What is not protected: who can keep a record back and send it first, from
// elsewhere, moves the peer there, until the client is heard again. He can read and
// forge nothing.
func TestDTLSNewerRecordFromElsewhereMovesThePeer(t *testing.T) {
	server, p, r, l := movable(t, dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()))
	var k tapped
	r.Through(k.through)
	k.keeping(true)
	pionSays(t, p, "kept back")
	elsewhere, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(l.at()))
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	elsewhere.Write(k.last(t, 1))
	k.keeping(false)
	server.hears(t, "kept back")
	there := elsewhere.LocalAddr().(*net.UDPAddr).AddrPort()
	eventually(t, "the server to follow", func() bool { return server.at() == there })
	server.says(t, "secret")
	b := make([]byte, 2000)
	elsewhere.SetReadDeadline(time.Now().Add(patience))
	if n, err := elsewhere.Read(b); err != nil || bytes.Contains(b[:n], []byte("secret")) {
		t.Errorf("%q, %v", b[:n], err)
	}
	// Of the answers, he can have no more sent there than three times what comes from
	// there: a third is not flooded.
	got, sent := 0, len(k.last(t, 1))
	for range 100 {
		server.says(t, "secret"+strings.Repeat("s", 1000))
	}
	elsewhere.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for n, err := elsewhere.Read(b); err == nil; n, err = elsewhere.Read(b) {
		got += n
		elsewhere.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}
	if got > 3*sent {
		t.Errorf("%d bytes for %d that came", got, sent)
	}
	pionSays(t, p, "here")
	server.hears(t, "here")
	eventually(t, "the server to come back", func() bool { return server.at() == r.Upstream(0) })
	server.says(t, "answer"+strings.Repeat("s", 5000))
	pionHears(t, p, "answer"+strings.Repeat("s", 5000))
}

// Our own client, in each combination of who would like one.
func TestDTLSConnectionIDsOfOurs(t *testing.T) {
	for _, c := range []struct{ server, client, want bool }{{true, true, true}, {true, false, false}, {false, true, false}, {false, false, false}} {
		s := newSite(t)
		s.server.CID, s.client.CID = c.server, c.client
		l := listenDTLS(t, NewDTLSServer(s.server))
		r := testnet.Relay(t, l.at(), testnet.Weather{})
		client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
		server := l.next()
		talkDTLS(t, server, client)
		overhead := overGCM
		if c.want {
			overhead += cidSize + 1
		}
		checkSizes(t, client, server, overhead)
		checkSizes(t, server, client, overGCM)
		if id := client.c.(*dtlsConn).under.bound.Load(); id != 0 {
			t.Errorf("%+v: the client has records sent to it with an ID of %d bytes", c, id)
		}
		if !c.want {
			continue
		}
		r.Rebind()
		client.says(t, "moved")
		server.hears(t, "moved")
		eventually(t, "the server to follow", func() bool { return server.at() == r.Upstream(0) })
		talkDTLS(t, server, client)
	}
}

// A server of the engine's that has an ID sent to it.
func TestDTLSConnectionIDsOfPion(t *testing.T) {
	s := newSite(t)
	s.client.CID = true
	leaf, err := new(certificates).get(t.Context(), s.server.Credential, nil)
	if err != nil {
		t.Fatal(err)
	}
	to := pionServer(t, dtls.WithCertificates(*leaf), dtls.WithConnectionIDGenerator(dtls.RandomCIDGenerator(5)))
	r := testnet.Relay(t, to, testnet.Weather{})
	var k tapped
	r.Through(k.through)
	client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
	for i := range 3 {
		// The engine gives what it read before it notes from where, so that a quick
		// answer may go to where its peer was.
		b, echoed := make([]byte, 100), false
		eventually(t, "an echo", func() bool {
			client.says(t, fmt.Sprint("echo ", i))
			client.c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			n, err := client.c.Read(b)
			for ; err == nil && !echoed; n, err = client.c.Read(b) {
				echoed = string(b[:n]) == fmt.Sprint("echo ", i)
			}
			return echoed
		})
		r.Rebind()
	}
	if last := k.last(t, k.count()); last[0] != wire.TypeCID {
		t.Errorf("our client sends %x", last)
	}
}

// Records of another length of ID, or with none, are dropped where one was agreed on.
func TestDTLSRecordWithoutItsConnectionID(t *testing.T) {
	s := newSite(t)
	s.psk()
	s.server.CID = true
	l := listenDTLS(t, NewDTLSServer(s.server))
	p := newPuppet(t, l.at(), suitePSK)
	p.cid = []byte{}
	p.shake()
	server := l.next()
	p.data("with")
	server.hears(t, "with")
	id := p.cid
	p.cid = nil
	p.data("without")
	p.cid = append(bytes.Clone(id[:7]), id[7]^1)
	p.data("another's")
	p.cid = id[:4]
	p.data("half of it")
	p.cid = id
	p.data("with it again")
	server.hears(t, "with it again")
	if d := server.c.(*dtlsConn); d.Discarded() == 0 {
		t.Error("nothing is counted")
	}
}
