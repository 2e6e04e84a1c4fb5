package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// A sky is the weather between a client and the program, and what is asked of
// handshakes under it.
type sky struct {
	name    string
	weather testnet.Weather
	pass    int  // per cent that have to succeed; 0 is for what is only reported
	mtu     int  // of our own flights, where the default is too large for it
	ours    bool // it is too small for the flights of other stacks
	atOnce  int
}

var skies = []sky{
	{name: "no loss", pass: 100, atOnce: most},
	{name: "10 % loss", pass: 98, atOnce: most, weather: testnet.Weather{Loss: 10}},
	{name: "20 % loss", pass: 95, atOnce: most, weather: testnet.Weather{Loss: 20}},
	{name: "twice and out of order", pass: 100, atOnce: most, weather: testnet.Weather{Duplicate: 20, Reorder: 20}},
	{name: "MTU 512", pass: 100, atOnce: most, mtu: 512, weather: testnet.Weather{MTU: 512}},
	{name: "MTU 100", atOnce: few, mtu: 100, ours: true, weather: testnet.Weather{MTU: 100}},
	{name: "50 % loss", atOnce: 2 * most, weather: testnet.Weather{Loss: 50}},
}

// handshakes is how many each stack makes under each sky. Fifty are what is asked of each:
// those of ours cost little, each of another stack a process, so that 50 of these
// wait for SALLYPORT_LOSS=full (make loss).
func (s *sky) handshakes(ours bool) int {
	switch {
	case os.Getenv("SALLYPORT_LOSS") == "full":
		return 50
	case s.pass == 0: // each may take all of lossLimit
		return 2 * most
	case ours:
		return 50
	}
	return 2 * most
}

const (
	lossLimit = 30 * time.Second
	// most is below the 128 handshakes at once that an address may have, for four
	// stacks of one address.
	most = 10
	// few are the hellos in parts that may wait of one address.
	few = 4
	// askEvery is slow enough that all that a client asks before its handshake is done
	// fits in one datagram.
	askEvery = 500 * time.Millisecond
)

// A stack makes the n-th handshake with what stands at addr, and gives how long
// that took. What comes back through it has to be what was sent.
type stack struct {
	name string
	try  func(ctx context.Context, n int) (time.Duration, error)
}

var errCorrupt = errors.New("other bytes came than were sent")

// F-30 and DT-07: handshakes of four stacks through a network that loses, doubles and
// reorders datagrams.
func TestHandshakesUnderLoss(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	page, _ := c.server(t, "notls")
	want := filepath.Join(t.TempDir(), "page")
	mustExecute(t, "", "coap-client-notls", "-B", "15", "-m", "get", "-o", want, "coap://"+page+"/")
	var all sync.WaitGroup
	for i, sky := range skies {
		sky.weather.Seed = uint64(i + 1)
		for _, s := range sky.stacks(t, c, page, want) {
			all.Go(func() { sky.measure(t, s) })
		}
	}
	all.Wait()
}

// stacks starts the program and relays before it, one a client.
func (s *sky) stacks(t *testing.T, c *coap, page, want string) []stack {
	t.Helper()
	mtu := s.mtu
	if mtu == 0 {
		mtu = 1200 // the default
	}
	far := runFile(t, fmt.Sprintf(`
defaults: {cert: %q, tls: {mtu: %d}, timeouts: {handshake: %s}}
listeners:
  - from: dtls://127.0.0.1:0
    name: echo
    to: "udp://%s"
  - from: dtls://127.0.0.1:0
    name: coap
    to: "udp://%s"
`, c.site, mtu, lossLimit, packetEcho(t), page))
	t.Cleanup(func() { endAtOnce(far) })
	relay := func(name string) string {
		return testnet.Relay(t, netip.MustParseAddrPort(far.Addr(name)), s.weather).Addr().String()
	}
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+relay("echo"), "--to-ca", c.anchors, "--to-name", "coap.test",
		"--to-tls-mtu", fmt.Sprint(mtu), "--timeouts-handshake", lossLimit.String())
	t.Cleanup(func() { endAtOnce(near) })
	list := []stack{{"sallyport", func(ctx context.Context, n int) (time.Duration, error) { return byDatagrams(ctx, near.Addr(""), n) }}}
	if s.ours {
		return list
	}
	// With a socket that blocks, s_client waits in a read for what comes after a
	// datagram that it throws away, and neither sends nor repeats anything meanwhile.
	openssl, gnutls, libcoap := relay("echo"), relay("echo"), relay("coap")
	return append(list,
		byProgram(t, "openssl", "s_client", "-dtls1_2", "-quiet", "-nbio", "-connect", openssl, "-CAfile", c.anchors, "-verify_return_error"),
		byProgram(t, "gnutls-cli", "--udp", "--port", portOf(t, gnutls), "--x509cafile", c.anchors, "127.0.0.1"),
		byCoap(t, c.anchors, libcoap, want))
}

// measure makes the handshakes of one stack.
func (s *sky) measure(t *testing.T, client stack) {
	var mu sync.Mutex
	var took []time.Duration
	var failures []error
	var work sync.WaitGroup
	free, all := make(chan struct{}, s.atOnce), s.handshakes(client.name == "sallyport")
	for n := range all {
		free <- struct{}{}
		work.Go(func() {
			defer func() { <-free }()
			ctx, cancel := context.WithTimeout(t.Context(), lossLimit)
			defer cancel()
			d, err := client.try(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, errCorrupt) {
				t.Errorf("%s, %s: %v", s.name, client.name, err)
			}
			if err != nil {
				failures = append(failures, fmt.Errorf("client %d: %w", n, err))
				return
			}
			took = append(took, d)
		})
	}
	work.Wait()
	slices.Sort(took)
	var median, last time.Duration
	if len(took) > 0 {
		median, last = took[len(took)/2], took[len(took)-1]
	}
	t.Logf("%s, %s: %d of %d, median %.2f s, slowest %.2f s", s.name, client.name, len(took), all, median.Seconds(), last.Seconds())
	may := all * (100 - s.pass) / 100
	if s.pass < 100 {
		may = max(may, 1) // of 20, one is 5 %
	}
	if len(failures) > may {
		t.Errorf("%s, %s: %d of %d handshakes, want %d %%: %v", s.name, client.name, len(took), all, s.pass, errors.Join(failures...))
	}
}

// byDatagrams talks to the program's own client side. What it asks is small enough
// for the smallest MTU.
func byDatagrams(ctx context.Context, addr string, n int) (time.Duration, error) {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return talk(ctx, c, n)
}

// talk asks until its question comes back, and gives how long that took.
func talk(ctx context.Context, c net.Conn, n int) (time.Duration, error) {
	begin := time.Now()
	ask, got := bytesOf(uint64(n), 24), make([]byte, 1<<16)
	for ctx.Err() == nil {
		if _, err := c.Write(ask); err != nil {
			return 0, err
		}
		c.SetReadDeadline(time.Now().Add(askEvery))
		size, err := c.Read(got)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
		case err != nil:
			return 0, err
		case !bytes.Equal(got[:size], ask):
			return 0, errCorrupt
		default:
			return time.Since(begin), nil
		}
	}
	return 0, ctx.Err()
}

// byProgram talks to a program that sends the lines of its standard input, and says
// what comes back.
func byProgram(t testing.TB, name string, args ...string) stack {
	path := tool(t, name)
	return stack{name, func(ctx context.Context, n int) (time.Duration, error) {
		begin := time.Now()
		cmd := exec.CommandContext(ctx, path, args...)
		in, err := cmd.StdinPipe()
		if err != nil {
			return 0, err
		}
		line := fmt.Sprintf("payload %x", bytesOf(uint64(n), 40))
		heard := make(chan error, 1)
		end, err := reading(cmd, func(out io.Reader) { heard <- hears(out, line) })
		if err != nil {
			return 0, err
		}
		defer end()
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			fmt.Fprintln(in, line) // where it has ended, its output has as well
			select {
			case err := <-heard:
				return time.Since(begin), err
			case <-tick.C:
			}
		}
	}}
}

// hears reads up to the line, between what else a program says.
func hears(out io.Reader, want string) error {
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == want {
			return nil
		}
		if strings.Contains(lines.Text(), "payload") {
			return fmt.Errorf("%w: %q", errCorrupt, lines.Text())
		}
		fmt.Fprintln(&said, lines.Text())
	}
	return fmt.Errorf("it ended without an answer: %s", &said)
}

// reading runs cmd, with each reading all that it says until end kills it.
func reading(cmd *exec.Cmd, each func(io.Reader)) (end func(), err error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() { each(out); close(done) }()
	return func() {
		cmd.Process.Kill()
		<-done
		cmd.Wait()
	}, nil
}

// byCoap has libcoap get a page. It asks again after 2, 6, 14 s by itself, which is
// its own affair: what is counted is the handshake.
func byCoap(t testing.TB, anchors, addr, want string) stack {
	path, dir := tool(t, "coap-client-openssl"), t.TempDir()
	page, err := os.ReadFile(want)
	if err != nil || len(page) == 0 {
		t.Fatalf("the server's page has %d bytes, %v", len(page), err)
	}
	return stack{"libcoap", func(ctx context.Context, n int) (time.Duration, error) {
		begin, file := time.Now(), filepath.Join(dir, fmt.Sprint(n))
		// Its sockets share ports with others of their kind, unless their addresses differ.
		from := fmt.Sprintf("127.0.1.%d", n+1)
		cmd := exec.CommandContext(ctx, path, "-v", "7", "-B", "30", "-a", from, "-m", "get", "-C", anchors, "-o", file, "coaps://"+addr+"/")
		var took time.Duration
		var said strings.Builder
		ended := make(chan struct{})
		end, err := reading(cmd, func(out io.Reader) {
			defer close(ended)
			for lines := bufio.NewScanner(out); lines.Scan(); {
				fmt.Fprintln(&said, lines.Text())
				if strings.HasSuffix(lines.Text(), "session connected") {
					took = time.Since(begin)
				}
			}
		})
		if err != nil {
			return 0, err
		}
		<-ended
		end()
		if got, _ := os.ReadFile(file); len(got) > 0 && !bytes.Equal(got, page) {
			return 0, fmt.Errorf("%w: %q", errCorrupt, got)
		}
		if took == 0 {
			return 0, fmt.Errorf("no handshake: %s", &said)
		}
		return took, nil
	}}
}
