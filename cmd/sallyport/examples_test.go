package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

const examples = "../../examples"

// TestExamples starts each file of examples/ and moves bytes through it.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(examples + "/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples (%v)", err)
	}
	cases := map[string]func(*testing.T, *example){
		"offload.yaml":                 exampleOffload,
		"encrypt.yaml":                 exampleEncrypt,
		"bridge.yaml":                  exampleBridge,
		"pass-through.yaml":            examplePassThrough,
		"tunnel-client.yaml":           exampleTunnelClient,
		"tunnel-server.yaml":           exampleTunnelServer,
		"client-certificates.yaml":     exampleClientCertificates,
		"routes.yaml":                  exampleRoutes,
		"expressions.yaml":             exampleExpressions,
		"old-server.yaml":              exampleOldServer,
		"datagram-proxy-protocol.yaml": exampleDatagramProxyProtocol,
		"proxy-protocol.yaml":          exampleProxyProtocol,
		"servers.yaml":                 exampleServers,
		"service.yaml":                 exampleService,

		"datagram-offload.yaml":       exampleDatagramOffload,
		"datagram-encrypt.yaml":       exampleDatagramEncrypt,
		"datagram-bridge.yaml":        exampleDatagramBridge,
		"datagram-pass-through.yaml":  exampleDatagramPassThrough,
		"datagram-tunnel-client.yaml": exampleDatagramTunnelClient,
		"datagram-tunnel-server.yaml": exampleDatagramTunnelServer,
	}
	for _, file := range files {
		name := filepath.Base(file)
		try := cases[name]
		delete(cases, name)
		if try == nil {
			t.Errorf("%s: nothing tries this example", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			try(t, newExample(t, name))
		})
	}
	for name := range cases {
		t.Errorf("%s is not there", name)
	}
}

// example is one file, copied to a folder of its own, with a CA for it.
type example struct {
	t    *testing.T
	text string
	dir  string
	root *ca.Tester
	args []string
}

func newExample(t *testing.T, name string) *example {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(examples, name))
	if err != nil {
		t.Fatal(err)
	}
	return &example{t: t, text: string(text), dir: t.TempDir(), root: ca.Test(t)}
}

// ca writes the root under the name that the file has for it.
func (e *example) ca(stem string) {
	e.t.Helper()
	if _, err := e.root.Write(e.dir, stem); err != nil {
		e.t.Fatal(err)
	}
}

// leaf writes a certificate and its key beside it.
func (e *example) leaf(stem string, names []string, opts ...ca.Option) {
	e.t.Helper()
	file := filepath.Join(e.dir, stem)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		e.t.Fatal(err)
	}
	if _, _, err := e.root.Leaf(names, opts...).Write(filepath.Dir(file), filepath.Base(file)); err != nil {
		e.t.Fatal(err)
	}
}

// server has the file's server stand at addr; a name stays the same and is
// resolved to it.
func (e *example) server(written, addr string) {
	e.t.Helper()
	if !strings.Contains(e.text, "://"+written) {
		e.t.Fatalf("the file names no server %s", written)
	}
	host, _, _ := net.SplitHostPort(written)
	at, port, _ := net.SplitHostPort(addr)
	if net.ParseIP(host) == nil {
		e.args = append(e.args, "--resolve", net.JoinHostPort(host, port)+":"+at)
		addr = net.JoinHostPort(host, port)
	}
	e.text = strings.ReplaceAll(e.text, "://"+written, "://"+addr)
}

var fromLine = regexp.MustCompile(`(- from: \w+://)\S+`)

// start runs the file, its listeners on free ports of this host.
func (e *example) start() *testnet.Program {
	e.t.Helper()
	text := fromLine.ReplaceAllString(e.text, "${1}127.0.0.1:0")
	file := filepath.Join(e.dir, fmt.Sprintf("%x.yaml", sha256.Sum256([]byte(text)))) // a tunnel's two ends stand in one folder
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
	p := start(e.t, append([]string{"run", "-c", file}, e.args...)...)
	p.WaitListeners(strings.Count(text, "- from:"))
	return p
}

// tlsBackend is backend behind TLS.
func (e *example) tlsBackend(name string, cfg *tls.Config) string {
	e.t.Helper()
	return serveEach(e.t, func(c *net.TCPConn) {
		s := tls.Server(c, cfg)
		line, err := bufio.NewReader(s).ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprintf(s, "%s got %s\n", name, strings.TrimSpace(line))
		s.CloseWrite()
		io.Copy(io.Discard, s)
	})
}

func (e *example) serverConfig(names ...string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{e.root.Leaf(names).TLS()}}
}

// askTLS sends a line under TLS, and gives the whole answer and what was agreed on.
func (e *example) askTLS(addr string, cfg *tls.Config) (string, tls.ConnectionState, error) {
	cfg.RootCAs = e.root.Pool()
	ctx, cancel := context.WithTimeout(context.Background(), testnet.Patience)
	defer cancel()
	bare, err := (&tls.Dialer{Config: cfg}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", tls.ConnectionState{}, err
	}
	defer bare.Close()
	c := bare.(*tls.Conn)
	c.SetDeadline(time.Now().Add(testnet.Patience))
	if _, err := fmt.Fprintln(c, "hello"); err != nil {
		return "", c.ConnectionState(), err
	}
	answer, err := io.ReadAll(c)
	return string(answer), c.ConnectionState(), err
}

func (e *example) mustAskTLS(addr string, cfg *tls.Config, want string) tls.ConnectionState {
	e.t.Helper()
	got, state, err := e.askTLS(addr, cfg)
	if err != nil || got != want+" got hello\n" {
		e.t.Fatalf("%q, %v; want the answer of %s", got, err, want)
	}
	return state
}

func exampleOffload(t *testing.T, e *example) {
	e.leaf("site", []string{"www.example"})
	e.server("127.0.0.1:8080", backend(t, "service"))
	p := e.start()
	e.mustAskTLS(p.Addr(""), &tls.Config{ServerName: "www.example"}, "service")
}

func exampleProxyProtocol(t *testing.T, e *example) {
	e.leaf("site", []string{"www.example"})
	e.ca("clients-ca")
	e.server("127.0.0.1:8080", nginxTold(t).addr)
	e.text = strings.ReplaceAll(e.text, "10.0.0.0/8", "127.0.0.1")
	front := haproxyTo(t, e.start().Addr(""), "send-proxy-v2")
	c := tls.Client(from(t, "127.0.0.77", front.addr), &tls.Config{ServerName: "www.example", RootCAs: e.root.Pool()})
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(c); !strings.Contains(string(got), "client 127.0.0.77 ") {
		t.Errorf("%v: %q", err, got)
	}
}

func exampleEncrypt(t *testing.T, e *example) {
	e.ca("db-ca")
	e.server("db.example:5432", e.tlsBackend("database", e.serverConfig("db.example")))
	p := e.start()
	mustAsk(t, p.Addr(""), "hello", "database got hello\n")
}

func exampleBridge(t *testing.T, e *example) {
	e.leaf("site", []string{"www.example"})
	e.ca("internal-ca")
	cfg := e.serverConfig("app.internal")
	cfg.NextProtos = []string{"h2"}
	e.server("10.0.0.7:8443", e.tlsBackend("app", cfg))
	p := e.start()
	got := e.mustAskTLS(p.Addr(""), &tls.Config{ServerName: "www.example", NextProtos: []string{"h2", "http/1.1"}}, "app")
	if got.NegotiatedProtocol != "h2" {
		t.Errorf("the server's choice was h2, and the client got %q", got.NegotiatedProtocol)
	}
}

func examplePassThrough(t *testing.T, e *example) {
	e.server("10.0.0.9:443", e.tlsBackend("shop", e.serverConfig("shop.example")))
	e.server("10.0.0.10:443", e.tlsBackend("mail", e.serverConfig("mail.example", "*.mail.example")))
	p := e.start()
	for name, want := range map[string]string{"shop.example": "shop", "mail.example": "mail", "imap.mail.example": "mail"} {
		e.mustAskTLS(p.Addr(""), &tls.Config{ServerName: name}, want)
	}
	if _, _, err := e.askTLS(p.Addr(""), &tls.Config{ServerName: "other.example"}); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		t.Errorf("a name that is not there: %v", err)
	}
}

// Both ends of the tunnel at once; each alone is refused what it should be.
func exampleTunnelClient(t *testing.T, e *example) {
	e.ca("tunnel-ca")
	e.leaf("db", []string{"db.example"})
	e.leaf("app", []string{"app.example"})
	far := newExample(t, "tunnel-server.yaml")
	far.dir = e.dir
	far.server("127.0.0.1:5432", backend(t, "database"))
	e.server("db.example:7000", far.start().Addr(""))
	p := e.start()
	mustAsk(t, p.Addr(""), "hello", "database got hello\n")
}

func exampleTunnelServer(t *testing.T, e *example) {
	e.ca("tunnel-ca")
	e.leaf("db", []string{"db.example"})
	e.server("127.0.0.1:5432", backend(t, "database"))
	p := e.start()
	app, stranger := e.root.Leaf([]string{"app.example"}).TLS(), e.root.Leaf([]string{"other.example"}).TLS()
	e.mustAskTLS(p.Addr(""), &tls.Config{ServerName: "db.example", Certificates: []tls.Certificate{app}}, "database")
	e.refused(p, &tls.Config{ServerName: "db.example", Certificates: []tls.Certificate{stranger}}, "client_not_allowed")
	e.refused(p, &tls.Config{ServerName: "db.example"}, "client_cert_missing")
}

// refused wants no answer, and that reason in the log.
func (e *example) refused(p *testnet.Program, cfg *tls.Config, reason string) {
	e.t.Helper()
	if got, _, err := e.askTLS(p.Addr(""), cfg); err == nil || got != "" {
		e.t.Errorf("%s: got %q, %v", reason, got, err)
	}
	p.Reason(reason)
}

func exampleClientCertificates(t *testing.T, e *example) {
	e.leaf("site", []string{"www.example"})
	e.ca("staff-ca")
	e.server("127.0.0.1:8080", backend(t, "service"))
	p := e.start()
	as := func(names []string, opts ...ca.Option) *tls.Config {
		return &tls.Config{ServerName: "www.example", Certificates: []tls.Certificate{e.root.Leaf(names, opts...).TLS()}}
	}
	for _, cfg := range []*tls.Config{
		as([]string{"a.ops.example"}),
		as(nil, ca.CN("backup"), ca.OU("machines")),
		as([]string{"spiffe://corp.example/deploy/web/1"}),
	} {
		e.mustAskTLS(p.Addr(""), cfg, "service")
	}
	e.refused(p, as([]string{"a.b.ops.example"}), "client_not_allowed")
	e.refused(p, as(nil, ca.CN("backup"), ca.OU("people")), "client_not_allowed")
	e.refused(p, &tls.Config{ServerName: "www.example"}, "client_cert_missing")
}

func exampleRoutes(t *testing.T, e *example) {
	e.leaf("certs/www", []string{"www.example"})
	e.leaf("certs/api", []string{"api.example"}, ca.SharedRSA())
	e.leaf("certs/admin", []string{"*.admin.example"})
	e.ca("internal-ca")
	e.ca("staff-ca")
	e.server("127.0.0.1:8080", backend(t, "www"))
	e.server("10.0.0.2:8443", e.tlsBackend("api", e.serverConfig("api.internal")))
	e.server("127.0.0.1:9090", backend(t, "admin"))
	e.server("10.0.0.9:443", e.tlsBackend("theirs", e.serverConfig("theirs.example")))
	e.server("db.example:3306", e.tlsBackend("database", e.serverConfig("db.example")))
	p := e.start()
	for _, name := range []string{"www", "api", "theirs"} {
		e.mustAskTLS(p.Addr("tls-0"), &tls.Config{ServerName: name + ".example"}, name)
	}
	admin := e.root.Leaf([]string{"jo.example"}, ca.OU("admins")).TLS()
	got := e.mustAskTLS(p.Addr("tls-0"), &tls.Config{ServerName: "a.admin.example", Certificates: []tls.Certificate{admin}}, "admin")
	if got.Version != tls.VersionTLS13 {
		t.Errorf("%s where only TLS 1.3 is spoken", tls.VersionName(got.Version))
	}
	e.refused(p, &tls.Config{ServerName: "a.admin.example"}, "client_cert_missing")
	mustAsk(t, p.Addr("tcp-0"), "hello", "database got hello\n")
}

func exampleOldServer(t *testing.T, e *example) {
	e.leaf("site", []string{"www.example"})
	e.ca("legacy-ca")
	e.server("10.0.0.7:443", e.tlsBackend("legacy", &tls.Config{
		Certificates: []tls.Certificate{e.root.Leaf([]string{"legacy.internal"}, ca.SharedRSA()).TLS()},
		MinVersion:   tls.VersionTLS10,
		MaxVersion:   tls.VersionTLS10,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA},
	}))
	p := e.start()
	got := e.mustAskTLS(p.Addr(""), &tls.Config{ServerName: "www.example", MinVersion: tls.VersionTLS13}, "legacy")
	if got.Version != tls.VersionTLS13 {
		t.Errorf("the client got %s", tls.VersionName(got.Version))
	}
	if _, _, err := e.askTLS(p.Addr(""), &tls.Config{ServerName: "www.example", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("the client's side took an old version too")
	}
	if r := p.Reason("ok"); r.Text("out_version") != "TLS 1.0" || r.Text("in_version") != "TLS 1.3" {
		t.Errorf("the record says %s and %s", r.Text("in_version"), r.Text("out_version"))
	}
}
