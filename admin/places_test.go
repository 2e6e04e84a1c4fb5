package admin

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const whole = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// placesAt serves on network; path /slow is answered once release is closed.
func placesAt(t *testing.T, network, addr string) (dial func(source string) net.Conn, full *atomic.Int64, busy chan struct{}, release chan struct{}) {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	full, busy, release = new(atomic.Int64), make(chan struct{}), make(chan struct{})
	s := Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			busy <- struct{}{}
			<-release
		}
		fmt.Fprint(w, "ok")
	}), time.Minute, slog.New(slog.DiscardHandler), func() { full.Add(1) })
	t.Cleanup(func() { s.Close(context.Background()) })
	return func(source string) net.Conn {
		t.Helper()
		var d net.Dialer
		if source != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
		}
		c, err := d.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c
	}, full, busy, release
}

func wantOK(t *testing.T, c net.Conn) {
	t.Helper()
	io.WriteString(c, whole)
	if code, _, body := answered(t, c); code != 200 || body != "ok" {
		t.Errorf("%d %q", code, body)
	}
}

// closed says that c ends without an answer.
func closed(c net.Conn) bool {
	n, err := io.Copy(io.Discard, c)
	ne, ok := err.(net.Error)
	return n == 0 && !(ok && ne.Timeout())
}

// Where clients that ask nothing, or send half a head or no body, have all places, the
// one that came first makes room for who asks.
func TestTheSilentGiveWay(t *testing.T) {
	const noBody = "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
	for name, says := range map[string]string{"silent": "", "half a head": "GET / HTTP/1.1\r\n", "no body": noBody} {
		t.Run(name, func(t *testing.T) {
			dial, full, _, _ := placesAt(t, "unix", t.TempDir()+"/s")
			silent := make([]net.Conn, connections)
			for i := range silent {
				silent[i] = dial("")
				io.WriteString(silent[i], says)
				if says == noBody { // which is waited for once it is answered
					io.ReadFull(silent[i], make([]byte, 1))
				}
			}
			wantOK(t, dial(""))
			if says != noBody {
				if !closed(silent[0]) {
					t.Error("the first is not closed")
				}
				io.WriteString(silent[1], strings.TrimPrefix(whole, says))
				if code, _, _ := answered(t, silent[1]); code != 200 {
					t.Error("the second has lost its place")
				}
			}
			if full.Load() != 1 {
				t.Errorf("%d are told", full.Load())
			}
		})
	}
}

// Who is being answered keeps its place; where all are, one more is closed, until one
// has its answer.
func TestWhoIsAnsweredStays(t *testing.T) {
	dial, full, busy, release := placesAt(t, "unix", t.TempDir()+"/s")
	asked := make([]net.Conn, connections)
	for i := range asked {
		asked[i] = dial("")
		io.WriteString(asked[i], strings.Replace(whole, "/", "/slow", 1))
		<-busy
	}
	if !closed(dial("")) || full.Load() != 1 {
		t.Errorf("one more is not closed, or not told: %d", full.Load())
	}
	close(release)
	for _, c := range asked {
		if code, _, _ := answered(t, c); code != 200 {
			t.Errorf("%d", code)
		}
		c.Close()
	}
	wantOK(t, dial(""))
}

// Clients of one address have half of the places, and make room for their own.
func TestPlacesOfOneAddress(t *testing.T) {
	dial, full, busy, release := placesAt(t, "tcp", "127.0.0.1:0")
	defer close(release)
	other := dial("127.0.0.3") // who came first is not the one to go
	for range share {
		io.WriteString(dial("127.0.0.2"), strings.Replace(whole, "/", "/slow", 1))
		<-busy
	}
	if !closed(dial("127.0.0.2")) || full.Load() != 1 {
		t.Errorf("one address has more than its share, told %d", full.Load())
	}
	wantOK(t, other)
	wantOK(t, dial("127.0.0.1"))
}
