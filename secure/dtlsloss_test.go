package secure

import (
	"bytes"
	"context"
	"crypto/sha256"
	be "encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"sallyport/flow"
	"sallyport/internal/testnet"
)

// datagramConn is what a client under loss is used by, ours or the engine's.
type datagramConn interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	SetReadDeadline(time.Time) error
	Close() error
}

// payload is a datagram that shows whether it is whole.
func payload(number uint32, size int) []byte {
	b := make([]byte, max(size, 36))
	be.BigEndian.PutUint32(b[32:], number)
	for i := range b[36:] {
		b[36+i] = byte(int(number) + i)
	}
	sum := sha256.Sum256(b[32:])
	copy(b, sum[:])
	return b
}

// numberOf is the payload's, and false of one that is not as it was sent.
func numberOf(b []byte) (uint32, bool) {
	if len(b) < 36 || sha256.Sum256(b[32:]) != [32]byte(b[:32]) {
		return 0, false
	}
	return be.BigEndian.Uint32(b[32:]), true
}

// echoOnce answers each datagram once, and fails the test where one comes broken or
// twice.
func echoOnce(t testing.TB, who string, c datagramConn) {
	seen := map[uint32]bool{}
	b := make([]byte, 8192)
	for {
		c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.Read(b)
		if err != nil {
			return
		}
		number, whole := numberOf(b[:n])
		if !whole || seen[number] {
			t.Errorf("%s: datagram %d of %d bytes came whole: %t, and before: %t", who, number, n, whole, seen[number])
		}
		seen[number] = true
		c.Write(b[:n])
	}
}

// asks sends payloads until as many answers have come, each once and whole.
func asks(t *testing.T, who string, c datagramConn, answers, size int) {
	seen := map[uint32]bool{}
	b := make([]byte, 8192)
	end := time.Now().Add(patience)
	for n := uint32(1); len(seen) < answers && time.Now().Before(end); n++ {
		if _, err := c.Write(payload(n, size)); err != nil {
			t.Errorf("%s: %v", who, err)
			return
		}
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		for {
			got, err := c.Read(b)
			if err != nil {
				break
			}
			number, whole := numberOf(b[:got])
			if !whole || seen[number] || number > n {
				t.Errorf("%s: answer %d came whole: %t, and before: %t", who, number, whole, seen[number])
			}
			seen[number] = true
		}
	}
	if len(seen) < answers {
		t.Errorf("%s: %d answers of %d", who, len(seen), answers)
	}
}

// Handshakes and datagrams through bad weather. At 50 % it is reported alone.
func TestDTLSLoss(t *testing.T) {
	const each = 6
	var all sync.WaitGroup
	for i, c := range []struct {
		weather testnet.Weather
		least   int // of each handshakes, that must succeed
		cid     bool
	}{
		{testnet.Weather{}, each, false},
		{testnet.Weather{Loss: 10}, each, false},
		{testnet.Weather{Loss: 10, Duplicate: 20, Reorder: 20}, each, true},
		{testnet.Weather{Loss: 20}, each - 1, true},
		{testnet.Weather{Loss: 50}, 0, false},
		{testnet.Weather{Duplicate: 50, Reorder: 50}, each, false},
		{testnet.Weather{Duplicate: 50, Reorder: 50}, each, true},
		{testnet.Weather{MTU: 512, Loss: 10}, each, false},
		{testnet.Weather{MTU: 100}, each, false},
	} {
		for _, who := range []string{"ours", "the engine's"} {
			if c.least == 0 && who != "ours" {
				continue // which waits for longer
			}
			all.Go(func() {
				c := c
				c.weather.Seed = uint64(1 + i)
				name := fmt.Sprintf("%s, %+v, CID %t", who, c.weather, c.cid)
				s := newSite(t)
				s.server.CID, s.client.CID = c.cid, c.cid
				s.server.MTU, s.client.MTU = c.weather.MTU, c.weather.MTU
				s.server.Timeout, s.client.Timeout = 20*time.Second, 20*time.Second
				if c.least == 0 {
					s.server.Timeout, s.client.Timeout = 4*time.Second, 4*time.Second
				}
				l := listenDTLS(t, NewDTLSServer(s.server))
				r := testnet.Relay(t, l.at(), c.weather)
				stop := l.echoes(name)
				defer stop()
				var good atomic.Int32
				puppetPool(each, each, func(int) {
					conn, err := s.underLoss(who, r.Addr(), c.weather.MTU)
					if err != nil {
						return
					}
					defer conn.Close()
					good.Add(1)
					answers, size := 20, 300
					if c.weather.Loss == 50 {
						answers = 5
					}
					if c.weather.MTU == 100 {
						size = 40
					}
					asks(t, name, conn, answers, size)
				})
				if n := int(good.Load()); n < c.least {
					t.Errorf("%s: %d handshakes of %d; %+v, %+v", name, n, each, r.Passed(testnet.ToServer), r.Passed(testnet.ToClient))
				} else if c.least == 0 {
					t.Logf("%s: %d handshakes of %d", name, n, each)
				}
				if n := r.Passed(testnet.ToClient).TooLarge + r.Passed(testnet.ToServer).TooLarge; n > 0 {
					t.Errorf("%s: %d datagrams were too large", name, n)
				}
			})
		}
	}
	all.Wait()
}

// echoes has all who finish their handshake echoed, until stop.
func (l *listener) echoes(who string) (stop func()) {
	var running sync.WaitGroup
	stopping := make(chan struct{})
	running.Go(func() {
		for {
			select {
			case <-stopping:
				return
			case s := <-l.done:
				if s.err != nil {
					continue
				}
				over := make(chan struct{})
				running.Go(func() { echoOnce(l.t, who, s.c); close(over) })
				running.Go(func() {
					select {
					case <-stopping:
					case <-over:
					}
					s.c.Close()
				})
			}
		}
	})
	return func() { close(stopping); running.Wait() }
}

func (s *site) underLoss(who string, to netip.AddrPort, mtu int) (datagramConn, error) {
	if who == "ours" {
		c := dialDTLS(s.t, to, NewDTLSClient(s.client))
		return c.c, c.err
	}
	opts := []dtls.ClientOption{dtls.WithFlightInterval(flightInterval)}
	if s.client.CID {
		opts = append(opts, dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()))
	}
	if mtu > 0 {
		opts = append(opts, dtls.WithMTU(mtu-fragmentHead))
	}
	return pionClient(s.t, to, opts...)
}

// Each single datagram of a handshake may get lost, in each direction: what was
// lost is sent again, and nothing else goes wrong.
func TestDTLSEachDatagramLost(t *testing.T) {
	var all sync.WaitGroup
	for _, way := range []testnet.Way{testnet.ToServer, testnet.ToClient} {
		for lost := range 6 {
			all.Go(func() {
				s := newSite(t)
				s.asking(AuthRequire)
				s.client.Credential = s.own(s.ca.Leaf([]string{"c.test"}))
				s.server.MTU, s.client.MTU = 600, 600 // so that flights have several
				l := listenDTLS(t, NewDTLSServer(s.server))
				r := testnet.Relay(t, l.at(), testnet.Weather{})
				r.Through(func(_ int, w testnet.Way, n int, p []byte) [][]byte {
					if w == way && n == lost {
						return nil
					}
					return [][]byte{p}
				})
				client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
				server := l.next()
				if client.err != nil || server.err != nil {
					t.Errorf("datagram %d to %v was lost: server %v, client %v", lost, way, server.err, client.err)
					return
				}
				// Of data nothing is sent again.
				echoing := make(chan struct{})
				go func() { echoOnce(t, "the server", server.c); close(echoing) }()
				asks(t, "the client", client.c, 3, 100)
				server.c.Close()
				<-echoing
			})
		}
	}
	all.Wait()
}

// DT-03 for the client's role, by a man in the middle: what he leaves out, puts in
// or changes gives no session that is not the server's own.
func TestDTLSMeddling(t *testing.T) {
	early := plainRecord(typeChangeCipherSpec, 0, 900, []byte{1})
	var all sync.WaitGroup
	for name, meddle := range map[string]func(p []byte) [][]byte{
		"no ServerKeyExchange": func(p []byte) [][]byte { return [][]byte{without(p, msgServerKeyExchange)} },
		"no certificate":       func(p []byte) [][]byte { return [][]byte{without(p, msgCertificate)} },
		"no ServerHelloDone":   func(p []byte) [][]byte { return [][]byte{without(p, msgServerHelloDone)} },
		"another ServerHello.random": func(p []byte) [][]byte {
			if isHandshake(p, msgServerHello) {
				p[13+12+2+20] ^= 1
			}
			return [][]byte{p}
		},
		"another signature": func(p []byte) [][]byte {
			if at := bytes.Index(p, []byte{4, 3, 0}); at > 0 && isHandshake(p, msgServerHello) {
				p[at+20] ^= 1
			}
			return [][]byte{p}
		},
		"no Finished of the server's": func(p []byte) [][]byte {
			if p[0] == typeChangeCipherSpec {
				return [][]byte{early}
			}
			return [][]byte{p}
		},
		"a Finished in clear": func(p []byte) [][]byte {
			if p[0] == typeChangeCipherSpec {
				return [][]byte{append(early, plainRecord(22, 0, 901, fragmentOf(msgFinished, 5, 12, 0, make([]byte, 12)))...)}
			}
			return [][]byte{p}
		},
	} {
		all.Go(func() {
			s := newSite(t)
			s.client.Timeout, s.server.Timeout = time.Second, time.Second
			l := listenDTLS(t, NewDTLSServer(s.server))
			r := testnet.Relay(t, l.at(), testnet.Weather{})
			r.Through(func(_ int, w testnet.Way, _ int, p []byte) [][]byte {
				if w == testnet.ToServer {
					return [][]byte{p}
				}
				return meddle(bytes.Clone(p))
			})
			if client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client)); client.err == nil || len(client.f.Outbound) != 0 {
				t.Errorf("%s: a session: %+v", name, client.f.Outbound)
			}
		})
	}
	all.Wait()
	// What only adds to it changes nothing.
	s := newSite(t)
	l := listenDTLS(t, NewDTLSServer(s.server))
	r := testnet.Relay(t, l.at(), testnet.Weather{})
	r.Through(func(_ int, w testnet.Way, n int, p []byte) [][]byte {
		rubbish := plainRecord(typeApplicationData, 0, uint64(800+n), []byte("early"))
		return [][]byte{rubbish, plainRecord(typeApplicationData, 1, uint64(800+n), []byte("early, with no key")), p, rubbish}
	})
	client := dialDTLS(t, r.Addr(), NewDTLSClient(s.client))
	talkDTLS(t, l.next(), client)
}

// without leaves the messages of one type out of a datagram.
func without(p []byte, message byte) []byte {
	var kept []byte
	for rest := p; len(rest) >= 13; {
		n := 13 + int(be.BigEndian.Uint16(rest[11:]))
		if record := rest[:n]; !isHandshake(record, message) {
			kept = append(kept, record...)
		}
		rest = rest[n:]
	}
	return kept
}

// What a server says in clear during a handshake a client has to believe.
func TestDTLSAlertInHandshake(t *testing.T) {
	s := newSite(t)
	l := listenDTLS(t, layerFunc(func(_ context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
		refuse(c, f, flow.Fail(flow.NoSharedCipher, "no"))
		return nil, flow.Fail(flow.NoRoute, "no")
	}))
	client := dialDTLS(t, l.at(), NewDTLSClient(s.client))
	if reasonOf(client.err) != flow.ServerAlert || !strings.Contains(client.err.Error(), "alert 40") {
		t.Errorf("got %v", client.err)
	}
}
