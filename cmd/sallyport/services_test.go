package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

func TestRedisBehindOffload(t *testing.T) {
	redis := startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		return exec.Command(tool(t, "redis-server"), "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir())
	})
	root := ca.Test(t)
	cert, key := root.Files(root.Leaf([]string{"localhost"}))
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+redis.addr, "--cert", cert, "--key", key)
	cli := func(stdin string, args ...string) string {
		return mustExecute(t, stdin, "redis-cli", append([]string{
			"--tls", "--cacert", root.File(), "-h", "localhost", "-p", portOf(t, p.Addr("")), "--no-auth-warning",
		}, args...)...)
	}
	if got := cli("", "ping"); strings.TrimSpace(got) != "PONG" {
		t.Errorf("ping: %q", got)
	}
	value := strings.Repeat("0123456789abcdef", 5<<16)
	if got := cli(value, "-x", "set", "large"); strings.TrimSpace(got) != "OK" {
		t.Errorf("set: %q", got)
	}
	if got := cli("", "get", "large"); strings.TrimSpace(got) != value {
		t.Errorf("%d bytes came back of %d", len(got), len(value))
	}
	for _, r := range p.Flows(3) {
		if r.Text("pattern") != "offload" || r.Text("in_version") != "TLS 1.3" || r.Text("server") != redis.addr {
			t.Errorf("%v", r)
		}
	}
}

func TestCurlAgainstTheShortestCommand(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Method, r.Host) }))
	defer app.Close()
	cert, key := selfSigned(t, "localhost")
	p := testnet.Start(t, "proxy", "tls://:0", "tcp://"+app.Listener.Addr().String(), "--cert", cert, "--key", key)
	host := "localhost:" + portOf(t, p.Addr(""))
	if got := mustExecute(t, "", "curl", "-sSk", "https://"+host); got != "GET "+host {
		t.Errorf("got %q", got)
	}
	r := p.Reason("ok")
	if r.Text("sni") != "localhost" || r.Text("in_version") != "TLS 1.3" || r.Num("down") == 0 || r.Num("up") == 0 {
		t.Errorf("%v", r)
	}
	if got, err := execute(t, "", "curl", "-sS", "https://"+host); err == nil || !strings.Contains(got, "self-signed") {
		t.Errorf("without -k: %v, %s", err, got)
	}
	p.Reason("client_rejected_leaf")
	if got := mustExecute(t, "", "curl", "-sS", "-o", "-", "-w", "%{http_code}", "http://"+host); !strings.HasSuffix(got, "400") {
		t.Errorf("plain HTTP got %q", got)
	}
	p.Reason("plain_http")
}

func selfSigned(t *testing.T, names ...string) (cert, key string) {
	t.Helper()
	root := ca.Test(t)
	return root.Files(root.SelfSigned(names))
}

const nginxConf = `daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {}
http {
  access_log off; client_max_body_size 0; client_body_in_file_only off;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  server {
    listen 127.0.0.1:%[2]s ssl http2;
    ssl_certificate %[3]s; ssl_certificate_key %[4]s;
    location = /proto { return 200 "$server_protocol"; }
    location / { proxy_pass http://%[5]s; proxy_request_buffering off; }
  }
}
`

// startNginx speaks h2 and HTTP/1.1 over TLS, and passes all but /proto to app.
func startNginx(t *testing.T, cert, key, app string) *daemon {
	t.Helper()
	return startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		dir := t.TempDir()
		conf := write(t, "nginx.conf", fmt.Sprintf(nginxConf, dir, port, cert, key, app))
		return exec.Command(tool(t, "nginx"), "-p", dir, "-c", conf, "-e", "stderr")
	})
}

// In a bridge the server chooses among the protocols that the client offers.
func TestHTTP2ThroughBridge(t *testing.T) {
	root := ca.Test(t)
	cert, key := root.Files(root.Leaf([]string{"old.internal"}))
	ours, oursKey := root.Files(root.Leaf([]string{"localhost"}))
	nginx := startNginx(t, cert, key, "127.0.0.1:1")
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tls://"+nginx.addr, "--cert", ours, "--key", oursKey,
		"--to-name", "old.internal", "--to-ca", root.File())
	url := "https://localhost:" + portOf(t, p.Addr("")) + "/proto"
	for _, c := range []struct{ flag, says, proto, alpn, offered string }{
		{"--http2", "ALPN: server accepted h2", "HTTP/2.0", "h2", "h2,http/1.1"},
		{"--http1.1", "ALPN: server accepted http/1.1", "HTTP/1.1", "http/1.1", "http/1.1"},
		{"--no-alpn", "HTTP/1.1 200", "HTTP/1.1", "", ""},
	} {
		got := mustExecute(t, "", "curl", "-sSv", c.flag, "--cacert", root.File(), url)
		if !strings.Contains(got, c.says) || !strings.Contains(got, c.proto) {
			t.Errorf("%s: curl says neither %q nor %q:\n%s", c.flag, c.says, c.proto, got)
		}
		r := p.Flow(c.flag, func(r testnet.Record) bool { return r.Text("in_alpn") == c.alpn })
		if r.Text("out_alpn") != c.alpn || r.Text("pattern") != "bridge" || r.Text("out_peer") != "old.internal" || r.Text("alpn_offered") != c.offered {
			t.Errorf("%s: %v", c.flag, r)
		}
	}
}

// Both ways at once through two HTTP/2 connections, with nghttpd as a server that
// speaks nothing else.
func TestHTTP2Only(t *testing.T) {
	root := ca.Test(t)
	cert, key := root.Files(root.Leaf([]string{"h2.internal", "localhost"}))
	dir := filepath.Dir(write(t, "file", strings.Repeat("nghttpd ", 1<<17)))
	server := startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		return exec.Command(tool(t, "nghttpd"), "-a", "127.0.0.1", "-d", dir, port, key, cert)
	})
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tls://"+server.addr, "--cert", cert, "--key", key,
		"--to-name", "h2.internal", "--to-ca", root.File())
	url := "https://localhost:" + portOf(t, p.Addr("")) + "/file"
	got := mustExecute(t, "", "curl", "-sS", "--http2", "--cacert", root.File(), "-w", "version %{http_version}", url)
	if want := strings.Repeat("nghttpd ", 1<<17) + "version 2"; got != want {
		t.Errorf("%d bytes of %d, the last are %q", len(got), len(want), got[max(0, len(got)-20):])
	}
	if r := p.Flows(1)[0]; r.Text("in_alpn") != "h2" || r.Text("out_alpn") != "h2" {
		t.Errorf("%v", r)
	}
}

func TestLargeTransfersByCurl(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Write(bulk())
			return
		}
		h := sha256.New()
		_, err := io.Copy(h, r.Body)
		fmt.Fprintf(w, "%x %v", h.Sum(nil), err)
	}))
	defer app.Close()
	root := ca.Test(t)
	cert, key := root.Files(root.Leaf([]string{"localhost", "inner"}))
	nginx := startNginx(t, cert, key, app.Listener.Addr().String())
	p := testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tls://"+nginx.addr, "--cert", cert, "--key", key,
		"--to-name", "inner", "--to-ca", root.File())
	url := "https://localhost:" + portOf(t, p.Addr("")) + "/"
	curl := func(args ...string) string {
		return mustExecute(t, "", "curl", append([]string{"-sS", "--cacert", root.File(), url}, args...)...)
	}
	file := filepath.Join(t.TempDir(), "bulk")
	curl("--http2", "-o", file)
	if got, err := os.ReadFile(file); err != nil || sum(got) != sum(bulk()) {
		t.Errorf("%v: %d bytes came of %d, or others", err, len(got), len(bulk()))
	}
	if got := curl("--http1.1", "-T", file); got != sum(bulk())+" <nil>" {
		t.Errorf("the upload arrived as %s", got)
	}
	down, up := p.Flows(2)[0], p.Flows(2)[1]
	if n := float64(len(bulk())); down.Num("down") < n || up.Num("up") < n || down.Text("in_alpn") != "h2" || up.Text("in_alpn") != "http/1.1" {
		t.Errorf("%v\n%v", down, up)
	}
}

// tunnel is two programs with TLS between them, both showing certificates.
type tunnel struct {
	near, far *testnet.Program // beside the app, beside the server
	root      *ca.Tester
}

func startTunnel(t *testing.T, server string) *tunnel {
	t.Helper()
	u := &tunnel{root: ca.Test(t)}
	db, dbKey := u.root.Files(u.root.Leaf([]string{"db.example"}))
	u.far = testnet.Start(t, "proxy", "tls://127.0.0.1:0", "tcp://"+server, "--cert", db, "--key", dbKey,
		"--client-ca", u.root.File(), "--allow-dns", "app.example")
	u.near = u.enter(t, "app.example")
	return u
}

// enter starts the app's end with a certificate of that name.
func (u *tunnel) enter(t *testing.T, name string) *testnet.Program {
	t.Helper()
	cert, key := u.root.Files(u.root.Leaf([]string{name}))
	port := portOf(t, u.far.Addr(""))
	return testnet.Start(t, "proxy", "tcp://127.0.0.1:0", "tls://db.example:"+port, "--to-ca", u.root.File(),
		"--to-cert", cert, "--to-key", key, "--resolve", net.JoinHostPort("db.example", port)+":127.0.0.1")
}

// check wants the records of both ends to name the other.
func (u *tunnel) check(t *testing.T) {
	t.Helper()
	near, far := u.near.Reason("ok"), u.far.Reason("ok")
	if near.Text("pattern") != "encrypt" || near.Text("out_peer") != "db.example" || near.Text("out_version") != "TLS 1.3" {
		t.Errorf("the app's end: %v", near)
	}
	if far.Text("pattern") != "offload" || far.Text("in_peer") != "app.example" || far.Text("sni") != "db.example" {
		t.Errorf("the server's end: %v", far)
	}
}

// Unix sockets on both sides: a program on the same host needs no port.
func TestUnixSockets(t *testing.T) {
	s, dir := newStock(t), t.TempDir()
	app, face := filepath.Join(dir, "app.sock"), filepath.Join(dir, "face.sock")
	l, err := net.Listen("unix", app)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "by unix") })}
	go srv.Serve(l)
	defer srv.Close()
	p := runFile(t, fmt.Sprintf(`
defaults: {cert: %s, to: "tcp://unix:%s"}
listeners:
  - from: tls://127.0.0.1:0
    name: port
  - from: tls://unix:%s
    name: socket
`, s.ecdsa, app, face))
	if out, err := s.curl(t, p.Addr("port"), "a.x.test"); err != nil || out != "by unix" {
		t.Errorf("%v: %s", err, out)
	}
	if p.Addr("socket") != "unix:"+face {
		t.Errorf("listening at %s", p.Addr("socket"))
	}
	for _, sni := range []string{"b.x.test", "c.x.test"} {
		if got := mustExecute(t, "", "curl", "-sS", "--cacert", s.anchors, "--unix-socket", face, "https://"+sni); got != "by unix" {
			t.Errorf("got %q", got)
		}
		wantFields(t, bySNI(t, p, sni), testnet.Record{"listener": "socket", "client": "unix", "reason": "ok"})
	}
	p.Signal(syscall.SIGTERM)
	p.Wait()
	if _, err := os.Stat(face); err == nil {
		t.Error("the socket is still there after the end")
	}
}

// startAsSystemd hands sockets over as systemd does: from descriptor 3 on, with
// the number of the process itself in LISTEN_PID.
func startAsSystemd(t *testing.T, names string, sockets []*os.File, args ...string) *testnet.Program {
	t.Helper()
	return testnet.StartIn(t, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `export LISTEN_PID=$$; exec "$0" "$@"`}, append([]string{cmd.Path}, cmd.Args[1:]...)...)
		cmd.Path = tool(t, "sh")
		cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
		cmd.ExtraFiles = sockets
	}, args...)
}

func TestSystemdSockets(t *testing.T) {
	s := newStock(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	path := filepath.Join(t.TempDir(), "s.sock")
	unix, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	var sockets []*os.File
	for _, l := range []net.Listener{tcp, unix} {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sockets = append(sockets, f)
	}
	p := startAsSystemd(t, "web:local", sockets, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf(`
defaults: {cert: %s, to: "tcp://%s"}
listeners:
  - from: tls://systemd:local
    name: local
  - from: tls://systemd:web
    name: web
`, s.ecdsa, backend(t, "web"))))
	p.WaitListeners(2)
	if p.Addr("web") != tcp.Addr().String() {
		t.Errorf("the listening line says %s", p.Addr("web"))
	}
	if out, err := s.curl(t, tcp.Addr().String(), "a.x.test"); err != nil || !strings.Contains(out, "web got GET") {
		t.Errorf("%v: %s", err, out)
	}
	wantFields(t, bySNI(t, p, "a.x.test"), testnet.Record{"listener": "web", "reason": "ok"})
	if got := mustExecute(t, "", "curl", "-sS", "--cacert", s.anchors, "--unix-socket", path, "https://b.x.test"); !strings.Contains(got, "web got GET") {
		t.Errorf("got %q", got)
	}
	wantFields(t, bySNI(t, p, "b.x.test"), testnet.Record{"listener": "local", "client": "unix", "reason": "ok"})
	p.Signal(syscall.SIGTERM)
	p.Wait()
	if _, err := os.Stat(path); err != nil {
		t.Error("the socket is systemd's, and was removed")
	}
}

// A socket of datagrams is handed over as well, and a reload that takes the listener
// out and brings it back takes it up again.
func TestSystemdDatagramSockets(t *testing.T) {
	c := newCoap(t)
	var sockets []*os.File
	var at []string
	for range 2 {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		f, err := u.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sockets, at = append(sockets, f), append(at, u.LocalAddr().String())
	}
	echo, file := packetEcho(t), filepath.Join(t.TempDir(), "sallyport.yaml")
	without := fmt.Sprintf("listeners:\n  - {from: udp://systemd:plain, name: plain, to: udp://%s}\n", echo)
	with := without + fmt.Sprintf("  - {from: dtls://systemd:coaps, name: coaps, psk: %q, to: udp://%s}\n", c.psk, echo)
	r := &reloader{file: file, site: new(site)}
	r.write(t, with)
	r.Program = startAsSystemd(t, "plain:coaps", sockets, "run", "-c", file)
	r.WaitListeners(2)
	if r.Addr("plain") != at[0] || r.Addr("coaps") != at[1] {
		t.Errorf("the listening lines say %s and %s, want %v", r.Addr("plain"), r.Addr("coaps"), at)
	}
	plain := dialUDP(t, at[0])
	mustEcho(t, plain, []byte("plain"))
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+at[1], "--to-psk", c.psk, "--to-psk-identity", "dev1")
	secure := dialUDP(t, near.Addr(""))
	mustEcho(t, secure, bytesOf(1, 1200))

	r.mustReload(t, without)
	mustEcho(t, secure, []byte("goes on"))
	r.write(t, without+fmt.Sprintf("  - {from: udp://systemd:coaps, name: other, to: udp://%s}\n", echo))
	r.mustKeep(t, "removed by an earlier reload", "until its last association ends")
	r.mustReload(t, with)
	mustEcho(t, secure, []byte("goes on"))
	again := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+at[1], "--to-psk", c.psk, "--to-psk-identity", "dev1")
	mustEcho(t, dialUDP(t, again.Addr("")), []byte("a new one"))
	for _, p := range []*testnet.Program{near, again, r.Program} {
		p.Signal(syscall.SIGKILL)
	}
}
