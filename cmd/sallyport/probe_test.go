package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/dane"
	"sallyport/internal/ca"
	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
	"sallyport/tool/probe"
)

// probeJSON runs sallyport probe and gives its reports, and whether it was content.
func probeJSON(t *testing.T, args ...string) (reports []probe.Report, good bool) {
	t.Helper()
	cmd := exec.Command(testnet.Binary(t), append([]string{"probe", "--json"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var r probe.Report
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, stderr.String())
		}
		reports = append(reports, r)
	}
	if len(reports) == 0 {
		t.Fatalf("no report: %v\n%s", err, stderr.String())
	}
	return reports, err == nil
}

func taken(tries []probe.Try) string {
	var names []string
	for _, t := range tries {
		if t.OK {
			names = append(names, t.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestProbe(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	d := s.sServer(t, s.ecdsa, "-max_protocol", "TLSv1.2", "-min_protocol", "TLSv1.1", "-groups", "P-384:P-256:X25519", "-alpn", "h2")
	reports, good := probeJSON(t, "tls://"+d.addr, "--to-ca", s.anchors)
	r := reports[0]
	if !good || len(reports) != 1 || r.Server != d.addr || !r.Routes[0].Passes || !r.Verdicts[0].Passes || r.Verdicts[0].By != "pkix" {
		t.Errorf("%+v", r)
	}
	if v, g := taken(r.Versions), taken(r.Groups); v != "TLS 1.2 TLS 1.1" || g != "X25519 P-256" {
		t.Errorf("versions %q, groups %q", v, g)
	}
	var unclear []string
	for _, g := range r.Groups {
		if g.Unclear { // the key's own, P-256, is offered with them, and ahead
			unclear = append(unclear, g.Name)
		}
	}
	if strings.Join(unclear, " ") != "P-384 P-521" {
		t.Errorf("unclear: %q", unclear)
	}
	if r.Agreed == nil || r.Agreed.Version != "TLS 1.2" || r.Agreed.ALPN != "h2" || !strings.Contains(r.Agreed.Cipher, "ECDHE_ECDSA") {
		t.Errorf("agreed: %+v", r.Agreed)
	}
	c := r.Chain[0]
	want := strings.TrimSpace(mustExecute(t, "", "openssl", "x509", "-in", s.ecdsa, "-noout", "-enddate", "-dateopt", "iso_8601"))
	if c.Key != "ECDSA P-256" || !slices.Contains(c.Names, "127.0.0.1") || "notAfter="+c.NotAfter.Format("2006-01-02 15:04:05Z") != want {
		t.Errorf("the certificate %+v, want %s", c, want)
	}
}

// What is wrong has its reason twice: by the verifier alone, and by the route.
func TestProbeOfAServerThatIsRefused(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	d := s.sServer(t, s.ecdsa)
	reports, good := probeJSON(t, "tls://"+d.addr, "--to-ca", s.anchors, "--to-name", "nobody.test")
	r := reports[0]
	if good || r.Failed != "" || r.Verdicts[0].Reason != "name_mismatch" || r.Routes[0].Reason != "name_mismatch" || taken(r.Versions) == "" {
		t.Errorf("%+v", r)
	}
	nobody := freeAddr(t)
	reports, good = probeJSON(t, "tls://"+nobody)
	if r := reports[0]; good || r.Reason != "dial_refused" || r.Chain != nil || r.Versions != nil {
		t.Errorf("%+v", r)
	}
}

// What fails for want of a certificate of ours says nothing about versions and groups.
func TestProbeOfAServerThatWantsACertificate(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	d := s.sServer(t, s.ecdsa, "-Verify", "1", "-CAfile", s.anchors)
	out, _ := execute(t, "", testnet.Binary(t), "probe", "tls://"+d.addr, "--to-ca", s.anchors)
	if !regexp.MustCompile(`versions    TLS 1\.3; perhaps TLS 1\.2`).MatchString(out) {
		t.Errorf("%s", out)
	}
}

func TestProbeByAFile(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	one, other := s.sServer(t, s.ecdsa), s.sServer(t, s.ecdsa)
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	text := fmt.Sprintf(`
defaults: {to: {ca: %q}}
listeners:
  - {from: "tcp://127.0.0.1:0", name: good, to: "tls://%s"}
  - {from: "tcp://127.0.0.1:0", name: bad, to: {addr: "tls://%s", name: nobody.test}}
  - {from: "tcp://127.0.0.1:0", name: plain, to: "tcp://127.0.0.1:1"}
  - {from: "tcp://127.0.0.1:0", name: more, to: "tls://%s"}
`, s.anchors, one.addr, one.addr, other.addr)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	reports, good := probeJSON(t, "-c", file)
	if good || len(reports) != 2 || len(reports[0].Routes) != 2 || !reports[0].Routes[0].Passes || reports[0].Routes[1].Reason != "name_mismatch" {
		t.Errorf("%+v", reports)
	}
	reports, good = probeJSON(t, "-c", file, "tls://"+other.addr)
	if !good || len(reports) != 1 || reports[0].Routes[0].By != "more" {
		t.Errorf("%+v", reports)
	}
	for args, want := range map[string]string{
		"-c " + file + " tls://127.0.0.1:1": "there is no such server",
		"-c " + file + " --to-name a.test":  "what the file says",
		"tcp://127.0.0.1:1":                 "no TLS server",
		"":                                  "TO is missing",
		"tls://127.0.0.1:1 --to-psk " + s.anchors:  "TLS is spoken with the server",
		"dtls://127.0.0.1:1 --to-psk " + s.anchors: "show none",
	} {
		out, err := execute(t, "", testnet.Binary(t), append([]string{"probe"}, strings.Fields(args)...)...)
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("probe %s: %v\n%s", args, err, out)
		}
	}
}

func TestProbeDTLS(t *testing.T) {
	t.Parallel()
	c := newCoap(t)
	_, secure := c.server(t, "openssl", "-c", c.site, "-j", keyOf(c.site), "-n")
	out, err := execute(t, "", testnet.Binary(t), "probe", "dtls://"+secure, "--to-ca", c.anchors, "--to-name", "coap.test")
	for _, want := range []string{"versions    DTLS 1.2\n", "pkix passes", "route ", "DTLS 1.2, TLS_ECDHE_"} {
		if err != nil || !strings.Contains(out, want) {
			t.Fatalf("%v, without %q:\n%s", err, want, out)
		}
	}
	record := mustExecute(t, "", testnet.Binary(t), "tlsa", c.site, "coap.test:5684", "--udp")
	if got := mustExecute(t, "", testnet.Binary(t), "tlsa", "dtls://"+secure, "coap.test:5684"); got != record || !strings.HasPrefix(got, "_5684._udp.coap.test. ") {
		t.Errorf("tlsa: %s, want %s", got, record)
	}
	file := write(t, "sallyport.yaml", fmt.Sprintf("listeners: [{from: \"udp://127.0.0.1:0\", name: things, to: {addr: \"dtls://%s\", name: coap.test, ca: %s}}]", secure, c.anchors))
	reports, good := probeJSON(t, "-c", file)
	if r := reports[0]; !good || taken(r.Versions) != "DTLS 1.2" || r.Routes[0].By != "things" || len(r.Chain) == 0 || r.Verdicts[0].By != "pkix" || !r.Verdicts[0].Passes {
		t.Errorf("%+v", r)
	}
}

// What DNS has and what is stapled stands in the report, with what each is worth.
func TestProbeSaysWhatElseThereIs(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	site := &daneSite{stock: d.stock, leaves: map[string]*ca.Leaf{}, servers: map[string]string{}, records: testdns.Records{}}
	leaf := d.inter.Leaf([]string{"*.example.test", "*.insecure.test", "*.bogus.test"})
	cert, _, err := leaf.Write(d.dir, "stapled")
	if err != nil {
		t.Fatal(err)
	}
	staple := write(t, "staple.der", string(respond(t, d.delegate, d.good(leaf.Cert))))
	server := d.sServer(t, cert, "-cert_chain", write(t, "chain.pem", string(d.inter.CertPEM())), "-status_file", staple)
	// Who sends the leaf twice, as some do, has sent its issuer all the same.
	twice := d.sServer(t, cert, "-cert_chain", write(t, "twice.pem", string(leaf.CertPEM())+string(d.inter.CertPEM())), "-status_file", staple)
	reports, _ := probeJSON(t, "tls://"+twice.addr, "--to-ca", d.anchors, "--to-name", "a.example.test")
	if !slices.ContainsFunc(reports[0].Extras, func(e probe.Extra) bool { return strings.HasPrefix(e.Text, "good, of ") }) {
		t.Errorf("with the leaf twice: %v", reports[0].Extras)
	}
	site.leaves["here"], site.servers["here"] = leaf, server.addr
	record := site.record(t, "here", 3, 1, dane.SHA256)
	site.publish(t, "svc.example.test", "here", record, "3 2 1 "+strings.Repeat("0", 64))
	site.publish(t, "none.example.test", "here")
	site.publish(t, "svc.insecure.test", "here", record)
	site.publish(t, "svc.bogus.test", "here", record)
	dns := testdns.Start(t, site.records)
	for name, want := range map[string]struct{ reason, first string }{
		"svc.example.test":  {"", "3 1 1 "},
		"none.example.test": {"dane_absent", "none (DNSSEC: secure)"},
		"svc.insecure.test": {"dane_insecure", "none (DNSSEC: insecure)"},
		"svc.bogus.test":    {"dane_bogus", "bogus"},
	} {
		reports, good := probeJSON(t, "tls://"+server.addr, "--to-ca", d.anchors, "--to-name", name, "--resolver-addr", "udp://"+dns.Resolver)
		r := reports[0]
		found := map[string][]string{}
		for _, e := range r.Extras {
			found[e.Kind] = append(found[e.Kind], e.Text)
		}
		if len(found["staple"]) != 1 || !strings.HasPrefix(found["staple"][0], "good, of ") {
			t.Errorf("%s: the staple %q", name, found["staple"])
		}
		text := strings.Join(found["tlsa"], "\n")
		if !strings.Contains(text, want.first) || want.reason == "" && (!strings.Contains(text, record+" (DNSSEC: secure)") || !strings.Contains(text, "not usable: ")) {
			t.Errorf("%s: %q", name, text)
		}
		said := map[string]string{}
		for _, v := range r.Verdicts {
			said[v.By] = v.Reason
		}
		if !good || said["dane"] != want.reason || said["pkix"] != "" || said["revocation"] != "revocation_unknown" || len(said) != 3 {
			t.Errorf("%s: %v, %+v", name, good, r.Verdicts)
		}
	}
}

// Each verifier is asked by itself, also those that no route has asked for.
func TestProbeSaysWhatEachVerifierSays(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	addr := s.shows(t, "probe", yesterday(l.a, l.foreign))
	list := write(t, "logs.json", string(l.list(day)))
	reports, good := probeJSON(t, "tls://"+addr, "--to-ca", s.anchors, "--to-name", "a.x.test", "--ct-log-list", list)
	r := reports[0]
	said := map[string]string{}
	for _, v := range r.Verdicts {
		said[v.By] = v.Reason
	}
	if !good || said["pkix"] != "" || said["ct"] != "ct_invalid" || said["revocation"] != "revocation_unknown" || len(said) != 3 {
		t.Errorf("%v, %+v", good, r.Verdicts)
	}
	var scts []string
	for _, e := range r.Extras {
		if e.Kind == "sct" {
			scts = append(scts, e.Text)
		}
	}
	if len(scts) != 2 || !strings.Contains(scts[0], `"Alder" (A)`) || !strings.Contains(scts[1], "a log that no list has") {
		t.Errorf("%q", scts)
	}
}
