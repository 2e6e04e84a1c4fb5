package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// largeCRL is one of inter's of some MiB. That its entries are few and long is no
// matter to what bounds a file, and is signed in no time.
func (d *desk) largeCRL(t testing.TB, mib int, revoked ...*x509.Certificate) []byte {
	t.Helper()
	long := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 1<<20)}
	der, err := d.inter.CRL(time.Now(), nil, func(l *x509.RevocationList) {
		for range mib {
			other := d.inter.Leaf([]string{"other.x.test"}).Cert
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: other.SerialNumber, RevocationTime: time.Now(), ExtraExtensions: []pkix.Extension{long}})
		}
		for _, c := range revoked {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A file of CRLs may be larger than other files, in DER and in PEM, also after a
// reload; what is too large even so is refused by words.
func TestRevocationLargeFile(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	leaf := d.inter.Leaf([]string{"face.x.test"})
	d.servers["face.x.test"] = leaf.TLS()
	root := write(t, "root.crl", string(d.crl(t, d.Tester, time.Now())))
	large := write(t, "large.crl", string(d.largeCRL(t, 5)))
	with := func(file string) []string {
		return []string{"proxy", "tcp://127.0.0.1:0", "tls://" + d.serve(t), "--to-ca", d.anchors, "--to-name", "face.x.test", "--to-revocation", "hard", "--to-crl", root + "," + file}
	}
	p := start(t, with(large)...)
	mustAsk(t, p.Addr(""), "level", "level")
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: d.largeCRL(t, 5, leaf.Cert)})
	if err := os.WriteFile(large+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(large+".new", large); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	p.WaitLog("reloaded")
	if _, err := ask(p.Addr(""), "level"); err == nil {
		t.Error("a revoked server passes")
	}
	p.Reason("revoked")
	huge := write(t, "huge.crl", "")
	if err := os.Truncate(huge, 64<<20+1); err != nil {
		t.Fatal(err)
	}
	out, err := executeCmd(t, nil, exec.Command(testnet.Binary(t), with(huge)...))
	if err == nil || !strings.Contains(out, "to.crl: "+huge+": is larger than 64 MiB") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What cannot be judged is refused when it is read, by the name of what it is.
func TestRevocationFilesRefused(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, side := range []string{"to", "client"} {
		for want, der := range map[string][]byte{"delta CRL": d.oddCRL(t, "delta"), "indirect CRL": d.oddCRL(t, "indirect"), "no CRL": d.inter.Cert.Raw} {
			file := write(t, "odd.crl", string(der))
			args := []string{"tcp://127.0.0.1:0", "tls://127.0.0.1:1", "--to-ca", d.anchors, "--to-crl", file}
			if side == "client" {
				args = []string{"tls://127.0.0.1:0", "tcp://127.0.0.1:1", "--cert", d.ecdsa, "--client-ca", d.anchors, "--allow", "all", "--client-crl", file}
			}
			out, err := executeCmd(t, nil, exec.Command(testnet.Binary(t), append([]string{"proxy"}, args...)...))
			if err == nil || !strings.Contains(out, side+".crl: "+file) || !strings.Contains(out, want) {
				t.Errorf("%s, %s: %v\n%s", side, want, err, out)
			}
		}
	}
}

// What was fetched is kept over a restart, for as long as it holds and no longer; a
// file that was damaged is named and not believed. A CRL that cannot be judged is
// named for what it is when it was fetched, too.
func TestRevocationKept(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	server := d.serve(t)
	root, err := d.CRL(time.Now(), nil, func(l *x509.RevocationList) { l.NextUpdate = time.Now().Add(3 * day) })
	if err != nil {
		t.Fatal(err)
	}
	state, offset := filepath.Join(t.TempDir(), "state"), write(t, "offset", "0s")
	file := fmt.Sprintf("state_dir: %s\nunsafe: {clock_offset: \"@%s\"}\ndefaults: {to: {ca: %s, profile: private, crl: %s, reach: 127.0.0.0/8, revocation: hard}}\nlisteners:\n",
		state, offset, d.anchors, write(t, "root.crl", string(root)))
	says := map[string]string{"ocsp": "ok", "crl": "ok", "delta": "a delta CRL", "indirect": "an indirect CRL"}
	for name := range says {
		where := ca.CRLAt(d.at(name))
		if name == "ocsp" {
			where = ca.OCSPAt(d.at(name))
		}
		leaf := d.inter.Leaf([]string{name + ".x.test"}, where)
		d.servers[name+".x.test"] = leaf.TLS()
		switch name {
		case "ocsp":
			d.answer(name, send(respond(t, d.delegate, d.good(leaf.Cert))))
		case "crl":
			d.answer(name, send(d.crl(t, d.inter, time.Now())))
		default:
			d.answer(name, send(d.oddCRL(t, name)))
		}
		file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s, to: {addr: \"tls://%s\", name: %s.x.test}}\n", name, server, name)
	}
	file = write(t, "sallyport.yaml", file)
	run := func(want map[string]string) *testnet.Program {
		t.Helper()
		p := start(t, "run", "-c", file)
		p.WaitListeners(len(says))
		for name, words := range want {
			_, err := ask(p.Addr(name), "level")
			flow := after(t, p, name, map[float64]bool{})
			if (err == nil) != (words == "ok") || words != "ok" && (flow.Text("reason") != "revocation_unknown" || !strings.Contains(flow.Text("err"), words)) {
				t.Errorf("%s: %v, %v; want %q", name, err, flow, words)
			}
		}
		endAtOnce(p)
		p.Wait()
		return p
	}
	run(says)
	d.answer("ocsp", nil)
	d.answer("crl", nil)
	good := map[string]string{"ocsp": "ok", "crl": "ok"}
	run(good)
	for name := range good {
		if n := d.times(name); n != 1 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
	missing := map[string]string{"ocsp": "404", "crl": "404"}
	put := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := filepath.Glob(filepath.Join(state, "revocation", "*"))
	if err != nil || len(kept) != 2 {
		t.Fatal(kept, err)
	}
	texts := map[string]string{}
	for _, k := range kept {
		text, err := os.ReadFile(k)
		if err != nil {
			t.Fatal(err)
		}
		texts[k] = string(text)
		put(k, "spoilt")
	}
	p := run(missing)
	for _, k := range kept {
		if !strings.Contains(p.Stderr(), k) {
			t.Errorf("it does not name %s: %s", k, p.Stderr())
		}
		if _, err := os.Stat(k); err == nil {
			t.Errorf("%s is still there", k)
		}
		put(k, texts[k])
	}
	put(offset, "25h")
	run(missing)
}

// oddCRL is a CRL of inter's that is whole and cannot be judged: delta or indirect.
func (d *desk) oddCRL(t testing.TB, kind string) []byte {
	t.Helper()
	e := map[string]pkix.Extension{
		"delta":    {Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 3}},
		"indirect": {Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x84, 1, 0xff}},
	}[kind]
	der, err := d.inter.CRL(time.Now(), nil, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{e} })
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// A CA that signs by RSA-PSS, as openssl does it: its CRL from a file, and its
// responder's answers, fetched and stapled.
func TestRevocationSignedWithPSS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := newDesk(t)
	pssCA := ca.Test(t, ca.SharedRSA())
	anchors, err := pssCA.Write(dir, "ca")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&ca.Leaf{Cert: pssCA.Cert, Chain: [][]byte{pssCA.Cert.Raw}, Key: pssCA.Key}).Write(dir, "signer"); err != nil {
		t.Fatal(err)
	}
	openssl := func(args ...string) {
		t.Helper()
		cmd := exec.Command(tool(t, "openssl"), args...)
		cmd.Dir = dir
		if out, err := executeCmd(t, nil, cmd); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("ca.cnf", "[ca]\ndefault_ca=d\n[d]\ndatabase=index\ncrlnumber=number\ncertificate=signer.pem\nprivate_key=signer.key\ndefault_md=sha384\ndefault_crl_days=1\n")
	put("number", "01\n")
	made := map[string]*ca.Leaf{}
	index := ""
	for _, name := range []string{"good", "bad"} {
		signed := ca.Template(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA256WithRSAPSS })
		l := pssCA.Leaf([]string{name + ".x.test"}, ca.OCSPAt(d.at(name)), signed)
		made[name], d.servers[name+".x.test"] = l, l.TLS()
		if _, _, err := l.Write(dir, name); err != nil {
			t.Fatal(err)
		}
		state := "V\t" + l.Cert.NotAfter.Format("060102150405Z") + "\t\t"
		if name == "bad" {
			state = "R\t" + l.Cert.NotAfter.Format("060102150405Z") + "\t" + time.Now().Add(-time.Minute).UTC().Format("060102150405Z") + "\t"
		}
		index += state + fmt.Sprintf("%X", l.Cert.SerialNumber.Bytes()) + "\tunknown\t/CN=" + name + "\n"
	}
	put("index", index)
	pss := func(flag string) []string {
		return []string{flag, "rsa_padding_mode:pss", flag, "rsa_pss_saltlen:digest"}
	}
	openssl(append([]string{"ca", "-config", "ca.cnf", "-gencrl", "-out", "list.crl"}, pss("-sigopt")...)...)
	server := d.serve(t)
	file := fmt.Sprintf("defaults: {to: {ca: %s, reach: 127.0.0.0/8}}\nlisteners:\n", anchors)
	for name := range made {
		openssl(append([]string{"ocsp", "-index", "index", "-CA", "ca.pem", "-rsigner", "signer.pem", "-rkey", "signer.key", "-rmd", "sha256", "-nmin", "60",
			"-issuer", "ca.pem", "-cert", name + ".pem", "-no_nonce", "-respout", name + ".der"}, pss("-rsigopt")...)...)
		answer, err := os.ReadFile(dir + "/" + name + ".der")
		if err != nil {
			t.Fatal(err)
		}
		d.answer(name, send(answer))
		stapling := d.sServer(t, dir+"/"+name+".pem", "-status_file", dir+"/"+name+".der").addr
		for how, to := range map[string]string{
			"fetched": fmt.Sprintf("{addr: \"tls://%s\", name: %s.x.test, revocation: hard}", server, name),
			"stapled": fmt.Sprintf("{addr: \"tls://%s\", name: %s.x.test}", stapling, name),
			"crl":     fmt.Sprintf("{addr: \"tls://%s\", name: %s.x.test, crl: %s/list.crl}", server, name, dir),
		} {
			file += fmt.Sprintf("- {from: \"tcp://127.0.0.1:0\", name: %s-%s, to: %s}\n", name, how, to)
		}
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(6)
	for name, reason := range map[string]string{"good": "ok", "bad": "revoked"} {
		for _, how := range []string{"fetched", "stapled", "crl"} {
			seen := map[float64]bool{}
			if _, err := ask(p.Addr(name+"-"+how), "level"); (err == nil) != (reason == "ok") {
				t.Errorf("%s, %s: %v", name, how, err)
			}
			flow := after(t, p, name+"-"+how, seen)
			wantFields(t, flow, testnet.Record{"reason": reason})
			if note := flow.Text("out_notes"); note != "" {
				t.Errorf("%s, %s: noted %q", name, how, note)
			}
		}
	}
}
