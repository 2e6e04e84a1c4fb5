package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// shaken runs one client behind a relay and says whether its handshake was done
// within the time that fault F-30 gives.
type shaken func(t testing.TB, c *coap, addr string) bool

const handshakeLimit = 30 * time.Second

// says runs a peer until it says text.
func says(text, name string, args ...string) func(testing.TB, string) bool {
	return func(t testing.TB, addr string) bool {
		var out output
		cmd := exec.Command(tool(t, name), append(args, strings.Split(addr, " ")...)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Error(err)
			return false
		}
		defer in.Close()
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return false
		}
		over := make(chan struct{})
		go func() { cmd.Wait(); close(over) }()
		defer func() { cmd.Process.Kill(); <-over }()
		limit, tick := time.After(handshakeLimit), time.NewTicker(20*time.Millisecond)
		defer tick.Stop()
		for !strings.Contains(out.String(), text) {
			select {
			case <-limit:
				return false
			case <-over:
				return strings.Contains(out.String(), text)
			case <-tick.C:
			}
		}
		return true
	}
}

var stacks = map[string]shaken{
	"openssl": func(t testing.TB, c *coap, addr string) bool {
		return says("Verify return code: 0", "openssl", "s_client", "-dtls1_2", "-CAfile", c.anchors, "-mtu", "1200", "-connect")(t, addr)
	},
	"gnutls": func(t testing.TB, c *coap, addr string) bool {
		host, port, _ := net.SplitHostPort(addr)
		return says("Handshake was completed", "gnutls-cli", "-u", "--x509cafile", c.anchors)(t, "-p "+port+" "+host)
	},
	"libcoap": func(t testing.TB, c *coap, addr string) bool {
		return says("This is a test server", "coap-client-openssl", "-B", "30", "-m", "get", "-u", "dev1", "-k", pskKey)(t, "coaps://"+addr+"/")
	},
}

// Fault F-30: handshakes through a network that loses, doubles and reorders, by
// four DTLS stacks; every one carries what comes after it unharmed.
func TestDatagramWeather(t *testing.T) {
	c := newCoap(t)
	plain, _ := c.server(t, "notls")
	p := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+plain, "--psk", c.psk, "--cert", c.site, "--client-auth", "none",
		"--timeouts-handshake", "30s", "--tls-mtu", "512")
	there := netip.MustParseAddrPort(p.Addr(""))
	for _, w := range []struct {
		testnet.Weather
		least int // per cent
	}{
		{testnet.Weather{Seed: 1, MTU: 1300}, 100},
		{testnet.Weather{Seed: 2, Loss: 10}, 98},
		{testnet.Weather{Seed: 3, Loss: 20}, 95},
		{testnet.Weather{Seed: 4, Loss: 5, Duplicate: 20, Reorder: 20}, 98},
	} {
		for name, try := range stacks {
			t.Run(fmt.Sprintf("%s, loss %d, doubled %d", name, w.Loss, w.Duplicate), func(t *testing.T) {
				t.Parallel()
				least := w.least
				if name == "libcoap" && w.Loss > 0 {
					least = 80 // what is counted is its answer, and it asks five times at most
				}
				many(t, least, 20, func(i int) bool {
					mine := w.Weather
					mine.Seed = w.Seed*100 + uint64(i) // a fate of its own
					return try(t, c, testnet.Relay(t, there, mine).Addr().String())
				})
			})
		}
		t.Run(fmt.Sprintf("ours, loss %d, doubled %d", w.Loss, w.Duplicate), func(t *testing.T) {
			t.Parallel()
			far := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--psk", c.psk, "--timeouts-handshake", "30s")
			relay := testnet.Relay(t, netip.MustParseAddrPort(far.Addr("")), w.Weather)
			near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+relay.Addr().String(), "--to-psk", c.psk, "--to-psk-identity", "dev1", "--timeouts-handshake", "30s")
			many(t, w.least, 50, func(int) bool { return untilEcho(t, dialUDP(t, near.Addr(""))) })
			endAtOnce(near)
			endAtOnce(far)
		})
	}
}

// many tries n times, some at once, and wants so many of a hundred to succeed.
func many(t *testing.T, least, n int, try func(i int) bool) {
	t.Helper()
	var good atomic.Int64
	var all sync.WaitGroup
	room := make(chan struct{}, 8) // so that all tests at once stay below the bound on handshakes of one address
	for i := range n {
		all.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			if try(i) {
				good.Add(1)
			}
		})
	}
	all.Wait()
	got := good.Load() * 100 / int64(n)
	t.Logf("%d%% of %d", got, n)
	if got < int64(least) {
		t.Errorf("%d%% of %d handshakes were done, and %d%% should be", got, n, least)
	}
}

// untilEcho sends until one comes back: what is lost after the handshake is lost.
func untilEcho(t testing.TB, c *net.UDPConn) bool {
	p, got := bytesOf(uint64(c.LocalAddr().(*net.UDPAddr).Port), 700), make([]byte, 2000)
	for end := time.Now().Add(handshakeLimit); time.Now().Before(end); {
		c.Write(p)
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, err := c.Read(got); err == nil {
			if !bytes.Equal(got[:n], p) {
				t.Errorf("%d bytes came back, and not those that were sent", n)
			}
			return true
		}
	}
	return false
}

// Fault F-31: who writes the addresses of others on his hellos gets no more bytes
// sent to them than he sent, has nothing kept, recorded or dialled, and clients
// feel nothing of him.
func TestDatagramSpoofedFlood(t *testing.T) {
	dir := t.TempDir()
	psk := writePSK(t, dir, "devices.psk")
	p := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--psk", psk)
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+p.Addr(""), "--to-psk", psk, "--to-psk-identity", "dev1")
	const clients = 100
	echo := func(int) bool { return untilEcho(t, dialUDP(t, near.Addr(""))) }
	many(t, 100, clients, echo)
	before, open := status(t, p, "VmRSS"), descriptors(t, p)

	stop := make(chan struct{})
	var flood sync.WaitGroup
	var sent, answered, hellos atomic.Int64
	for n := range 4 {
		flood.Go(func() { spoof(t, p.Addr(""), byte(n+1), stop, &sent, &answered, &hellos) })
	}
	many(t, 99, clients, echo)
	for c := dialUDP(t, near.Addr("")); hellos.Load() < 20_000 && !t.Failed(); {
		if !untilEcho(t, c) {
			t.Error("who talks already is not heard")
		}
	}
	close(stop)
	flood.Wait()
	t.Logf("%d hellos of %d bytes, answered by %d", hellos.Load(), sent.Load(), answered.Load())
	if a, s := answered.Load(), sent.Load(); a > s || a == 0 {
		t.Errorf("%d bytes were answered to %d", a, s)
	}
	// The second hundred clients cost as much as the first.
	if grown := status(t, p, "VmRSS") - before; grown > before+32<<10 {
		t.Errorf("it grew by %d KiB", grown)
	}
	if now := descriptors(t, p); now > open+clients+1 {
		t.Errorf("%d files are open, %d were before %d clients", now, open, clients)
	}
	endAtOnce(p)
	p.Wait()
	if strings.Contains(p.Stderr(), `"client":"127.77.`) {
		t.Error("a spoofed hello made a record")
	}
}

// spoof sends hellos from ever new addresses of 127.77.0.0/16 until stop.
func spoof(t testing.TB, to string, lane byte, stop <-chan struct{}, sent, answered, hellos *atomic.Int64) {
	hello := captured(t, "openssl.hex")
	there := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to))
	answer := make([]byte, 2000)
	for n := uint32(0); ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		from := net.IPv4(127, 77, byte(n%250)+1, lane)
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: from}, there)
		if err != nil {
			t.Error(err)
			return
		}
		for i := range 20 {
			binary.BigEndian.PutUint32(hello[29:], n<<8|uint32(i)) // of its random
			if m, err := c.Write(hello); err == nil {
				sent.Add(int64(m))
				hellos.Add(1)
			}
		}
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		for {
			m, err := c.Read(answer)
			if err != nil {
				break
			}
			answered.Add(int64(m))
		}
		c.Close()
	}
}
