package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// IC-36 both ways: an intermediate that is left out refuses, or is fetched, as
// encrypt and as bridge, over TLS and DTLS, of servers and of clients.
func TestMissingIntermediate(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	pkcs7 := mustExecute(t, string(d.CertPEM())+string(d.inter.CertPEM()), "openssl", "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "der")
	places := map[string]http.HandlerFunc{
		"der": send(d.inter.Cert.Raw), "pem": send(d.inter.CertPEM()), "pkcs7": send([]byte(pkcs7)),
		"other": send(d.Cert.Raw), "garbage": send([]byte("<html>")), "missing": http.NotFound, "huge": send(make([]byte, 1<<20)), "slow": dribble,
		"inward": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		},
	}
	says := map[string]string{"other": "that of the issuer", "garbage": "neither a certificate", "missing": "404", "huge": "more than 65536 bytes", "slow": "in time", "inward": "link-local"}
	leafOf := func(place string) *ca.Leaf {
		l := d.inter.Leaf([]string{place + ".x.test"}, ca.AIAAt(d.at(place)))
		l.Chain = l.Chain[:1]
		return l
	}
	file := fmt.Sprintf("defaults: {to: {ca: %s, profile: private, tls: {tickets: off}}}\nlisteners:\n", d.anchors)
	server := d.serve(t)
	for place, answer := range places {
		d.answer(place, answer)
		d.servers[place+".x.test"] = leafOf(place).TLS()
		for _, aia := range []string{"off", "on"} {
			to := fmt.Sprintf("to: {addr: \"tls://%s\", name: %s.x.test, aia: %s, reach: 127.0.0.1}", server, place, aia)
			file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s-%s, %s}\n", place, aia, to)
			file += fmt.Sprintf("- {from: \"tls://127.0.0.1:0\", name: %s-%s-bridge, cert: %s, %s}\n", place, aia, d.ecdsa, to)
		}
	}
	file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: unreached, to: {addr: \"tls://%s\", name: der.x.test, aia: on}}\n", server)
	p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(4*len(places) + 1)
	for place := range places {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			seen := map[float64]bool{}
			for _, aia := range []string{"off", "on"} {
				want := "unknown_ca"
				if aia == "on" && says[place] == "" {
					want = "ok"
				}
				for range 2 {
					for _, listener := range []string{place + "-" + aia, place + "-" + aia + "-bridge"} {
						begun := time.Now()
						if err := askOf(p, listener, d.Pool()); (err == nil) != (want == "ok") {
							t.Errorf("%s: %v", listener, err)
						}
						if took := time.Since(begun); took > 6*time.Second { // 3 s, and the machine's own
							t.Errorf("%s took %s", listener, took)
						}
						flow := after(t, p, listener, seen)
						wantFields(t, flow, testnet.Record{"reason": want})
						if aia == "on" && !strings.Contains(flow.Text("err"), says[place]) {
							t.Errorf("%s: %q", listener, flow.Text("err"))
						}
					}
				}
				if n := d.times(place); aia == "off" && n > 0 {
					t.Errorf("asked %d times without aia", n)
				}
			}
		})
	}
	t.Run("unreached", func(t *testing.T) {
		ask(p.Addr("unreached"), "level")
		if flow := byListener(t, p, "unreached"); flow.Text("reason") != "unknown_ca" || !strings.Contains(flow.Text("err"), "a loopback address") {
			t.Errorf("%v", flow)
		}
	})
}

// The same of clients, and of DTLS on both sides.
func TestMissingIntermediateOfClients(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.answer("i", send(d.inter.Cert.Raw))
	leaf := d.inter.Leaf([]string{"127.0.0.1"}, ca.AIAAt(d.named("i")))
	leaf.Chain = leaf.Chain[:1]
	cert, _, err := leaf.Write(d.dir, "lonely")
	if err != nil {
		t.Fatal(err)
	}
	for _, aia := range []string{"off", "on"} {
		for carrier, to := range map[string]string{"tls": "tcp://" + serveEach(t, echo), "dtls": "udp://" + packetEcho(t)} {
			t.Run(carrier+" client "+aia, func(t *testing.T) {
				t.Parallel()
				p := start(t, "proxy", carrier+"://127.0.0.1:0", to, "--cert", d.ecdsa, "--client-ca", d.anchors, "--allow", "all", "--client-aia="+aia, "--resolve", d.mapped())
				flag := map[string]string{"tls": "-tls1_3", "dtls": "-dtls1_2"}[carrier]
				execute(t, "hello\n", "timeout", "5", "openssl", "s_client", flag, "-connect", p.Addr(""), "-cert", cert, "-key", keyOf(cert))
				p.Reason(map[string]string{"off": "client_cert_unknown_ca", "on": "ok"}[aia])
			})
		}
		t.Run("dtls server "+aia, func(t *testing.T) {
			t.Parallel()
			c := &coap{stock: d.stock}
			_, addr := c.server(t, "openssl", "-c", cert, "-j", keyOf(cert), "-n")
			p := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+addr, "--to-ca", d.anchors, "--to-aia="+aia, "--resolve", d.mapped())
			if aia == "on" {
				c.want(t, "notls", p.Addr(""))
				return
			}
			dialUDP(t, p.Addr("")).Write([]byte("hello"))
			p.Reason("unknown_ca")
		})
	}
}
