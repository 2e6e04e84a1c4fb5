package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/config"
)

// notes is a controller that notes what it is told.
type notes struct {
	did    []string
	failed error
}

func (t *notes) note(format string, args ...any) { t.did = append(t.did, fmt.Sprintf(format, args...)) }

func (t *notes) Status() Status               { return Status{PID: 42, Ready: true} }
func (t *notes) Flows(most int) Flows         { t.note("flows %d", most); return Flows{All: 3} }
func (t *notes) Sandbox() Sandbox             { return Sandbox{UID: 7, Folders: Folders{Read: []string{"/a"}}} }
func (t *notes) End()                         { t.note("end") }
func (t *notes) Kill(id uint64) bool          { t.note("kill %d", id); return id == 1 }
func (t *notes) Reload(context.Context) error { t.note("reload"); return t.failed }
func (t *notes) Drain(_ context.Context, server string, back bool) error {
	t.note("drain %s %v", server, back)
	return t.failed
}

// What changes something is a POST with the header, and nothing else does anything.
func TestControl(t *testing.T) {
	for _, c := range []struct {
		method, path string
		header, tcp  bool
		host         string
		code         int
		did          string
	}{
		{method: "GET", path: "/status", code: 200},
		{method: "GET", path: "/sandbox", code: 200},
		{method: "GET", path: "/flows", code: 200, did: "flows 10000"},
		{method: "POST", path: "/kill?id=1", header: true, code: 200, did: "kill 1"},
		{method: "POST", path: "/kill?id=2", header: true, code: 404, did: "kill 2"},
		{method: "POST", path: "/kill?id=-1", header: true, code: 400},
		{method: "POST", path: "/kill?id=18446744073709551616", header: true, code: 400},
		{method: "POST", path: "/kill", header: true, code: 400},
		{method: "POST", path: "/drain", header: true, code: 200, did: "end"},
		{method: "POST", path: "/drain?server=tcp%3A%2F%2Fa%3A1", header: true, code: 200, did: "drain tcp://a:1 false"},
		{method: "POST", path: "/drain?server=x&back=1", header: true, code: 200, did: "drain x true"},
		{method: "POST", path: "/reload", header: true, code: 200, did: "reload"},
		// Without the header, as a page of another site would have a browser send it.
		{method: "POST", path: "/reload", code: 403},
		{method: "POST", path: "/drain", code: 403},
		{method: "POST", path: "/kill?id=1", code: 403},
		// By another method, header or not.
		{method: "GET", path: "/reload", header: true, code: 405},
		{method: "HEAD", path: "/drain", header: true, code: 405},
		{method: "PUT", path: "/kill?id=1", header: true, code: 405},
		{method: "OPTIONS", path: "/drain", header: true, code: 405},
		{method: "POST", path: "/status", header: true, code: 405},
		{method: "post", path: "/reload", header: true, code: 405},
		// No path is made another.
		{method: "POST", path: "/reload/", header: true, code: 404},
		{method: "POST", path: "//reload", header: true, code: 404},
		{method: "GET", path: "/status/../flows", code: 404},
		{method: "GET", path: "/metrics", code: 404},
		{method: "GET", path: "/debug/pprof/", code: 404},
		{method: "GET", path: "/pprof?kind=none", code: 404},
		{method: "GET", path: "/pprof?kind=cpu&seconds=61", code: 400},
		{method: "GET", path: "/pprof?kind=cpu&seconds=-1", code: 400},
		{method: "GET", path: "/pprof?kind=cpu", code: 400},
		{method: "GET", path: "/pprof?kind=goroutine", code: 200},
		// Over TCP only to an address, and no profiles.
		{method: "GET", path: "/status", tcp: true, host: "127.0.0.1:1", code: 200},
		{method: "GET", path: "/status", tcp: true, host: "[::1]:1", code: 200},
		{method: "GET", path: "/status", tcp: true, host: "localhost", code: 200},
		{method: "GET", path: "/status", tcp: true, host: "evil.example:1", code: 403},
		{method: "GET", path: "/status", tcp: true, host: "127.0.0.1.evil.example", code: 403},
		{method: "POST", path: "/reload", header: true, tcp: true, host: "evil.example", code: 403},
		{method: "GET", path: "/pprof?kind=heap", tcp: true, host: "127.0.0.1", code: 404},
	} {
		r := httptest.NewRequest(c.method, c.path, nil)
		r.Host = c.host
		if c.header {
			r.Header.Set(Header, "1")
		}
		w, does := httptest.NewRecorder(), &notes{}
		Control(does, c.tcp).ServeHTTP(w, r)
		if did := strings.Join(does.did, ","); w.Code != c.code || did != c.did {
			t.Errorf("%s %s %q: %d and did %q, want %d and %q: %s", c.method, c.path, c.host, w.Code, did, c.code, c.did, w.Body)
		}
		if c.code == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s does not say which methods are allowed", c.method, c.path)
		}
	}
}

// What fails is said in the words of who failed.
func TestControlSaysWhatFailed(t *testing.T) {
	does := &notes{failed: errors.New("the file is wrong\nhint: mend it")}
	for _, path := range []string{"/reload", "/drain?server=x"} {
		r := httptest.NewRequest("POST", path, nil)
		r.Header.Set(Header, "1")
		w := httptest.NewRecorder()
		Control(does, false).ServeHTTP(w, r)
		var f Failure
		if err := json.Unmarshal(w.Body.Bytes(), &f); err != nil || f.Err != does.failed.Error() || w.Code != http.StatusConflict {
			t.Errorf("%s: %d %s (%v)", path, w.Code, w.Body, err)
		}
	}
}

// serving is a server on a unix socket.
func serving(t *testing.T, h http.Handler) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := Serve(l, h, 10*time.Second, slog.New(slog.DiscardHandler), func() {})
	t.Cleanup(func() { s.Close(context.Background()) })
	return path
}

func dialled(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// answered reads an answer, which says that the connection ends; code 0 is a reset, as
// it may be for who goes on sending what was refused.
func answered(t *testing.T, c net.Conn) (code int, h http.Header, body string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if errors.Is(err, syscall.ECONNRESET) {
		return 0, nil, ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) || !r.Close {
		t.Errorf("%d: %v, the connection ends: %v", r.StatusCode, err, r.Close)
	}
	return r.StatusCode, r.Header, string(data)
}

// F-36: a head and a body have their bounds, an answer is for no browser, and the
// connection ends with it.
func TestServeIsBounded(t *testing.T) {
	path := serving(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			refuse(w, http.StatusRequestEntityTooLarge, err.Error())
			return
		}
		fmt.Fprint(w, n)
	}))
	for _, c := range []struct {
		head, body string
		code       int
	}{
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", 200},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4096\r\n\r\n", strings.Repeat("x", bodyBytes), 200},
		{"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4097\r\n\r\n", strings.Repeat("x", bodyBytes+1), 413},
		{"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", headerBytes+8<<10) + "\r\n\r\n", "", 431},
		{"GET / HTTP/1.1\r\nHost: x\r\n X: y\r\n\r\n", "", 400},
		{"GET / HTTP/1.1\r\n\r\n", "", 400},
		{"GET / HTTP/9.1\r\nHost: x\r\n\r\n", "", 505},
		{"\x16\x03\x01\x02\x00\x01\r\n\r\n", "", 400},
	} {
		conn := dialled(t, path)
		// What is refused early may not be read to its end.
		_, _ = io.WriteString(conn, c.head+c.body)
		code, h, body := answered(t, conn)
		if early := c.code == 413 || c.code == 431; code != c.code && !(early && code == 0) {
			t.Errorf("%.60q: %d %s, want %d", c.head, code, body, c.code)
		}
		if code == 200 && (h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Content-Security-Policy") != "default-src 'none'") {
			t.Errorf("%.60q: %v", c.head, h)
		}
		for name := range h {
			if strings.HasPrefix(name, "Access-Control") {
				t.Errorf("%.60q: %s", c.head, name)
			}
		}
	}
}

// Who sends half a head is put out when its time is over.
func TestServePutsOutTheSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		l := &one{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		l.conns <- far
		s := Serve(l, http.NotFoundHandler(), time.Minute, slog.New(slog.DiscardHandler), func() {})
		began := time.Now()
		io.WriteString(near, "GET / HTTP/1.1\r\nHost: ")
		io.Copy(io.Discard, near)
		if took := time.Since(began); took < headerTimeout || took > headerTimeout+time.Second {
			t.Errorf("it was put out after %v", took)
		}
		near.Close()
		s.Close(context.Background())
	})
}

// one is a listener without sockets.
type one struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *one) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *one) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *one) Addr() net.Addr { return &net.UnixAddr{Name: "one", Net: "unix"} }

// The client says what to try where nobody answers, where somebody else does, and
// where it may not ask.
func TestClient(t *testing.T) {
	ctx := t.Context()
	at := func(path string) *Client { return NewClient(config.Address{Carrier: "tcp", Unix: path}) }
	good := at(serving(t, Control(&notes{}, false)))
	var s Status
	body, err := good.Get(ctx, "/status")
	if err != nil || json.Unmarshal(body, &s) != nil || s.PID != 42 {
		t.Errorf("%s %v", body, err)
	}
	if err := good.Tell(ctx, "/kill?id=1"); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		stale:                              "connection refused\nhint: does sallyport run",
		filepath.Join(dir, "none"):         "no such file or directory\nhint: does sallyport run",
		filepath.Join(dir, "file"):         "connection refused\nhint: does sallyport run",
		serving(t, http.NotFoundHandler()): "answers 404 Not Found: is it a control socket?",
	} {
		if _, err := at(path).Get(ctx, "/status"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if err := good.Tell(ctx, "/kill?id=9"); err == nil || err.Error() != "no flow has the ID 9; it may have ended" {
		t.Error(err)
	}
}
