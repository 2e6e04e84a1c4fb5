package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/dane"
	"sallyport/internal/ca"
	"sallyport/internal/testdns"
	"sallyport/internal/testnet"
	"sallyport/tool/tlsa"
)

// What is printed is what ldns-dane, danetool and OpenSSL make of the certificate.
func TestTLSAPrints(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	inter := s.Intermediate()
	cert, _, err := inter.Leaf([]string{"a.test"}).Write(s.dir, "tlsa")
	if err != nil {
		t.Fatal(err)
	}
	program := testnet.Binary(t)
	form := func(u, sel, m int) string {
		return mustExecute(t, "", program, "tlsa", cert, "a.test:8443", "--usage", strconv.Itoa(u), "--selector", strconv.Itoa(sel), "--matching", strconv.Itoa(m))
	}
	alone := write(t, "alone.pem", mustExecute(t, "", "openssl", "x509", "-in", cert))
	for m := range 3 {
		for sel := range 2 {
			theirs := mustExecute(t, "", "ldns-dane", "-n", "-c", alone, "create", "a.test", "8443", "3", strconv.Itoa(sel), strconv.Itoa(m))
			if a, b := data(form(3, sel, m)), data(theirs); a != b || a == "" {
				t.Errorf("3 %d %d: ours %q, of ldns-dane %q", sel, m, a, b)
			}
		}
	}
	for _, c := range []struct {
		sel, m int
		args   string
	}{{0, 1, "--hash SHA256 --x509"}, {1, 1, "--hash SHA256"}, {1, 2, "--hash SHA512"}} {
		theirs := mustExecute(t, "", "danetool", append(strings.Fields(c.args), "--tlsa-rr", "--host", "a.test", "--port", "8443", "--load-certificate", alone)...)
		if a, b := data(form(3, c.sel, c.m)), data(theirs); a != b || a == "" {
			t.Errorf("3 %d %d: ours %q, of danetool %q", c.sel, c.m, a, b)
		}
	}
	// The leaf's key by OpenSSL.
	der := mustExecute(t, "", "sh", "-c", fmt.Sprintf("openssl x509 -in %s -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -r", cert))
	want := "_8443._tcp.a.test. IN TLSA 3 1 1 " + strings.Fields(der)[0] + "\n"
	if got := mustExecute(t, "", program, "tlsa", cert, "a.test:8443"); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := mustExecute(t, "", program, "tlsa", cert, "A.test.", "--udp", "--generic"); !strings.HasPrefix(got, `_443._udp.a.test. IN TYPE52 \# 35 030101`+strings.Fields(der)[0]) {
		t.Errorf("%q", got)
	}
	if got := mustExecute(t, "", program, "tlsa", cert); got != "IN TLSA 3 1 1 "+strings.Fields(der)[0]+"\n" {
		t.Errorf("%q", got)
	}
	if got := mustExecute(t, "", program, "tlsa", cert, "a.test", "--usage", "2", "--selector", "0"); !strings.Contains(got, tlsaOf(t, inter.Cert, 2, 0, dane.SHA256)) {
		t.Errorf("of the issuer: %q", got)
	}
	for args, says := range map[string]string{
		"":                              "CERT is missing",
		cert + " 127.0.0.1:1":           "no name that records can be at",
		cert + " *.a.test":              "no name that records can be at",
		cert + " a.test:0":              "is no port",
		cert + " a.test --usage 4":      "no TLSA record has the parameters",
		s.anchors + " a.test --usage 2": "has no issuer's certificate",
		cert + " --check --resolver-addr udp://127.0.0.1:1":         "where clients find the certificate",
		cert + " a.test --check --resolver-addr udp://192.0.2.1:53": "anybody on the way",
		keyOf(cert) + " a.test":                                     "has no certificate",
		"tls://127.0.0.1:1 a.test":                                  "refused",
	} {
		if out, err := execute(t, "", program, append([]string{"tlsa"}, strings.Fields(args)...)...); err == nil || !strings.Contains(out, says) {
			t.Errorf("tlsa %s: %v\n%s\nwant %q", args, err, out, says)
		}
	}
}

// data is what a record says, without the name and the hexadecimal's shape.
func data(line string) string {
	m := regexp.MustCompile(`TLSA\s+\(?\s*0?(\d)\s+0?(\d)\s+0?(\d)\s+\(?\s*([0-9a-fA-F\s]+)`).FindStringSubmatch(line)
	if m == nil {
		return ""
	}
	return m[1] + m[2] + m[3] + strings.Join(strings.Fields(m[4]), "")
}

// checks runs tlsa --check --json.
func checks(t *testing.T, d *testdns.DNS, args ...string) (reports []tlsa.Report, good bool) {
	t.Helper()
	cmd := exec.Command(testnet.Binary(t), append([]string{"tlsa", "--check", "--json", "--resolver-addr", "udp://" + d.Resolver}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var r tlsa.Report
		if err := dec.Decode(&r); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		reports = append(reports, r)
	}
	if len(reports) == 0 {
		t.Fatalf("no report: %v\n%s", err, stderr.String())
	}
	return reports, err == nil
}

// A roll-over, step by step; OpenSSL agrees with what we call good.
func TestTLSACheck(t *testing.T) {
	t.Parallel()
	s := newDANESite(t, "self", "ta")
	next, _, err := s.private.SelfSigned([]string{"svc.example.test"}).Write(s.dir, "next")
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(t, s.servers["self"])
	at := "svc.example.test:" + port
	served := "tls://" + s.servers["self"]
	program := testnet.Binary(t)
	old := mustExecute(t, "", program, "tlsa", served, at)
	to := mustExecute(t, "", program, "tlsa", next, at)
	issuer := tlsaOf(t, s.private.Cert, 2, 1, dane.SHA512)
	s.records["example.test"] = "svc A 127.0.0.1\n" + old + "ta A 127.0.0.1\n_" + portOf(t, s.servers["ta"]) + "._tcp.ta TLSA " + issuer + "\nnone A 127.0.0.1\n"
	s.records["insecure.test"] = "svc A 127.0.0.1\n_" + port + "._tcp.svc TLSA " + s.record(t, "self", 3, 1, dane.SHA256) + "\n"
	s.records["bogus.test"] = s.records["insecure.test"]
	s.records["lame.test"] = ""
	d := testdns.Start(t, s.records)

	reports, good := checks(t, d, served, at)
	if r := reports[0]; !good || r.State != "secure" || !r.Certificates[0].Passes || len(r.Records) != 1 || len(r.Records[0].Matches) != 1 {
		t.Errorf("as it is: %+v", r)
	}
	reports, good = checks(t, d, next, at)
	if c := reports[0].Certificates[0]; good || c.Passes || c.Needs+"\n" != to || reports[0].Records[0].Matches != nil {
		t.Errorf("before its record: %+v", reports[0])
	}
	d.Set("example.test", s.records["example.test"]+to)
	before := time.Now()
	reports, good = checks(t, d, next, at)
	c := reports[0].Certificates[0]
	if !good || !c.Passes || c.By != "3 1 1" || c.Safe.Before(before.Add(-time.Second)) || c.Safe.After(time.Now().Add(2*time.Second)) {
		t.Errorf("with its record: %+v", reports[0])
	}
	if _, good = checks(t, d, served, at); !good {
		t.Error("what is served does not pass during the roll-over")
	}
	// What the zone says is good to others as well.
	out, _ := execute(t, "", "openssl", "s_client", "-connect", s.servers["self"], "-brief", "-dane_tlsa_domain", "svc.example.test",
		"-dane_ee_no_namechecks", "-dane_tlsa_rrdata", data3(old), "-dane_tlsa_rrdata", data3(to))
	if !strings.Contains(out, "Verification: OK") {
		t.Errorf("openssl: %s", out)
	}

	reports, good = checks(t, d, "tls://"+s.servers["ta"], "ta.example.test:"+portOf(t, s.servers["ta"]))
	if r := reports[0]; !good || r.Certificates[0].By != "2 1 2" || len(r.Records[0].Matches) != 1 {
		t.Errorf("by its issuer: %+v", r)
	}
	for host, want := range map[string]string{"none.example.test": "secure", "svc.insecure.test": "insecure", "svc.bogus.test": "bogus", "svc.lame.test": "failed"} {
		reports, good = checks(t, d, served, host+":"+port)
		if r := reports[0]; good || r.State != want || r.Certificates[0].Passes || (r.Error != "") != (want == "bogus" || want == "failed") {
			t.Errorf("%s: %+v", host, r)
		}
	}
	for host, want := range map[string]string{
		"none.example.test": "does not pass; publish, and serve it one TTL later:\n", "svc.insecure.test": "does not pass; have the zone signed (DNSSEC), then publish, and serve it",
		"svc.bogus.test": "mend the signatures of the zone (DNSSEC) first\n", "svc.lame.test": "does not pass: nothing is known of its records\n",
	} {
		out, err := execute(t, "", program, "tlsa", "--check", "--resolver-addr", "udp://"+d.Resolver, served, host+":"+port)
		if err == nil || !strings.Contains(out, want) || strings.Contains(out, "publish, and") != strings.Contains(want, "publish, and") {
			t.Errorf("%s, without %q:\n%s", host, want, out)
		}
	}
	text, _ := execute(t, "", program, "tlsa", "--check", "--resolver-addr", "udp://"+d.Resolver, served, at)
	for _, want := range []string{"is of what " + s.servers["self"] + " shows", "passes by 3 1 1", "safe to serve from 20", "is of none of these"} {
		if !strings.Contains(text, want) {
			t.Errorf("without %q:\n%s", want, text)
		}
	}
}

// data3 is a line's record alone.
func data3(line string) string {
	_, rec, _ := strings.Cut(strings.TrimSpace(line), "TLSA ")
	return rec
}

// The certificates of a file's listeners, at their ports and names.
func TestTLSAOfAFile(t *testing.T) {
	t.Parallel()
	s := newStock(t)
	ecdsa, rsa := s.leaf(t, "e", []string{"a.example.test", "b.example.test"}), s.leaf(t, "r", []string{"a.example.test", "*.c.test"}, ca.SharedRSA(), encrypts)
	file := write(t, "sallyport.yaml", fmt.Sprintf(`
listeners:
  - {from: "tls://:8443", name: web, cert: [%s, %s], to: "tcp://127.0.0.1:1"}
  - {from: "dtls://:5684", name: coap, cert: %s, to: "udp://127.0.0.1:1"}
  - {from: "tcp://127.0.0.1:1234", name: plain, to: "tls://127.0.0.1:1"}
`, ecdsa, rsa, ecdsa))
	program := testnet.Binary(t)
	out := mustExecute(t, "", program, "tlsa", "-c", file)
	var names []string
	for line := range strings.Lines(out) {
		names = append(names, strings.Fields(line)[0])
	}
	if got, want := strings.Join(names, " "), "_8443._tcp.a.example.test. _8443._tcp.b.example.test. _8443._tcp.a.example.test. _5684._udp.a.example.test. _5684._udp.b.example.test."; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	out = mustExecute(t, "", program, "tlsa", "-c", file, "x.c.test:443")
	if strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "_443._tcp.x.c.test. IN TLSA 3 1 1 ") {
		t.Errorf("%s", out)
	}
	records := mustExecute(t, "", program, "tlsa", "-c", file, "a.example.test")
	d := testdns.Start(t, testdns.Records{"example.test": "a A 127.0.0.1\n" + records})
	reports, good := checks(t, d, "-c", file, "a.example.test")
	if !good || len(reports) != 2 || len(reports[0].Certificates) != 2 || len(reports[0].Records) != 2 || len(reports[1].Certificates) != 1 {
		t.Errorf("%+v", reports)
	}
	if out, err := execute(t, "", program, "tlsa", "-c", file, "--check", "--resolver-addr", "udp://"+d.Resolver); err == nil || !strings.Contains(out, "no records (DNSSEC: secure)") || !strings.Contains(out, "("+rsa+"): passes") || !strings.Contains(out, "("+ecdsa+"): passes") {
		t.Errorf("each by its file, and b.example.test has none: %v\n%s", err, out)
	}
}

// What is printed for a listener lets OpenSSL pass to it: the leaves by their keys, and
// both by the CA, which is sent since it stands in the file.
func TestTLSATowardsClients(t *testing.T) {
	t.Parallel()
	private := ca.Test(t)
	inter := private.Intermediate()
	dir := t.TempDir()
	var files []string
	for stem, opts := range map[string][]ca.Option{"e": nil, "r": {ca.SharedRSA(), encrypts}} {
		cert, _, err := inter.Leaf([]string{"a.example.test"}, opts...).Write(dir, stem)
		if err != nil {
			t.Fatal(err)
		}
		whole := mustExecute(t, "", "cat", cert, private.File()) // the intermediate is in cert already
		if err := os.WriteFile(cert, []byte(whole), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, cert)
	}
	file := write(t, "sallyport.yaml", fmt.Sprintf("listeners: [{from: \"tls://127.0.0.1:0\", cert: [%s], to: \"tcp://%s\"}]", strings.Join(files, ", "), backend(t, "web")))
	p := start(t, "run", "-c", file)
	p.WaitListeners(1)
	for _, form := range []string{"--usage 3", "--usage 3 --selector 0 --matching 2", "--usage 2 --selector 0", "--usage 2 --matching 0"} {
		printed := mustExecute(t, "", testnet.Binary(t), append([]string{"tlsa", "-c", file, "a.example.test:443"}, strings.Fields(form)...)...)
		for _, sigalgs := range []string{"ECDSA+SHA256", "RSA-PSS+SHA256"} {
			args := []string{"s_client", "-connect", p.Addr(""), "-brief", "-servername", "a.example.test", "-sigalgs", sigalgs, "-dane_tlsa_domain", "a.example.test"}
			for line := range strings.Lines(printed) {
				args = append(args, "-dane_tlsa_rrdata", data3(line))
			}
			out, _ := execute(t, "", "openssl", args...)
			if !strings.Contains(out, "Verification: OK") || !strings.Contains(out, "DANE TLSA ") {
				t.Errorf("%s, %s:\n%s\n%s", form, sigalgs, printed, out)
			}
		}
	}
}
