package main

import (
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/testnet"
)

// psk writes dev1's key, alone, under the name that the file has for it.
func (e *example) psk(stem string) string {
	e.t.Helper()
	return writeKeyAs(e.t, e.dir, stem, "dev1:"+pskKey)
}

// near is the client's side of a DTLS server, for a client that speaks clear text.
func (e *example) near(addr string, flags ...string) *testnet.Program {
	e.t.Helper()
	return start(e.t, append([]string{"proxy", "udp://127.0.0.1:0", "dtls://" + addr}, flags...)...)
}

// far is a DTLS server that echoes.
func (e *example) far(names ...string) string {
	e.t.Helper()
	e.leaf(names[0], names)
	return start(e.t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(e.t), "--cert", e.dir+"/"+names[0]+".pem").Addr("")
}

func (e *example) echoes(p *testnet.Program) {
	e.t.Helper()
	mustEcho(e.t, dialUDP(e.t, p.Addr("")), []byte("hello"))
}

func exampleDatagramOffload(t *testing.T, e *example) {
	key := e.psk("devices.psk")
	e.leaf("coap", []string{"coap.example"})
	e.server("127.0.0.1:5683", packetEcho(t))
	p := e.start()
	e.echoes(e.near(p.Addr(""), "--to-psk", key))
	e.echoes(e.near(p.Addr(""), "--to-ca", e.root.File(), "--to-name", "coap.example"))
}

func exampleDatagramEncrypt(t *testing.T, e *example) {
	e.ca("coap-ca")
	e.server("coap.example:5684", e.far("coap.example"))
	e.echoes(e.start())
}

func exampleDatagramBridge(t *testing.T, e *example) {
	key := e.psk("devices.psk")
	e.ca("internal-ca")
	e.server("10.0.0.7:5684", e.far("coap.internal"))
	p := e.start()
	e.echoes(e.near(p.Addr(""), "--to-psk", key))
}

func exampleDatagramPassThrough(t *testing.T, e *example) {
	e.server("10.0.0.9:5684", e.far("shop.example"))
	e.server("10.0.0.10:5684", e.far("a.meters.example"))
	p := e.start()
	for _, name := range []string{"shop.example", "a.meters.example"} {
		e.echoes(e.near(p.Addr(""), "--to-ca", e.root.File(), "--to-name", name))
	}
	stray := e.near(p.Addr(""), "--to-ca", e.root.File(), "--to-name", "other.example")
	dialUDP(t, stray.Addr("")).Write([]byte("hello"))
	p.Reason("unrecognized_name")
	if r := stray.Reason("server_alert"); !strings.Contains(r.Text("err"), "unrecognized_name") {
		t.Errorf("the client is told %q", r.Text("err"))
	}
}

func exampleDatagramTunnelClient(t *testing.T, e *example) {
	e.psk("tunnel.psk")
	far := newExample(t, "datagram-tunnel-server.yaml")
	far.dir = e.dir
	far.server("127.0.0.1:514", packetEcho(t))
	far.text = strings.Replace(far.text, "10.0.0.0/8", "127.0.0.0/8", 1)
	e.server("logs.example:6514", far.start().Addr(""))
	e.echoes(e.start())
}

func exampleDatagramTunnelServer(t *testing.T, e *example) {
	key := e.psk("tunnel.psk")
	e.server("127.0.0.1:514", packetEcho(t))
	p := e.start()
	near := e.near(p.Addr(""), "--to-psk", key)
	dialUDP(t, near.Addr("")).Write([]byte("from no such network"))
	p.Reason("address_refused")
	near.Signal(syscall.SIGTERM)
}
