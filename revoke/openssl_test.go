package revoke_test

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/revoke"
)

// A real responder, asked by GET and by POST, with a delegate's key and the CA's.
func TestOpenSSLResponder(t *testing.T) {
	at := time.Now()
	root := ca.TestAt(t, at)
	for name, signer := range map[string]*ca.Leaf{
		"delegate": root.Leaf([]string{"responder.test"}, ocspSigning),
		"CA":       {Cert: root.Cert, Chain: [][]byte{root.Cert.Raw}, Key: root.Key},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			good, bad := root.Leaf([]string{"good.test"}), root.Leaf([]string{"bad.test"})
			index := ""
			for _, l := range []*ca.Leaf{good, bad} {
				state := "V\t" + l.Cert.NotAfter.Format("060102150405Z") + "\t"
				if l == bad {
					state = "R\t" + l.Cert.NotAfter.Format("060102150405Z") + "\t" + at.Add(-time.Minute).UTC().Format("060102150405Z") + ",keyCompromise"
				}
				index += state + "\t" + strings.ToUpper(l.Cert.SerialNumber.Text(16)) + "\tunknown\t/CN=x\n"
			}
			if err := os.WriteFile(filepath.Join(dir, "index"), []byte(index), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := signer.Write(dir, "signer"); err != nil {
				t.Fatal(err)
			}
			if _, err := root.Write(dir, "ca"); err != nil {
				t.Fatal(err)
			}
			place := responder(t, dir, "-index", "index", "-CA", "ca.pem", "-rsigner", "signer.pem", "-rkey", "signer.key", "-nmin", "5")
			c := new(clock)
			c.set(time.Now().Add(time.Second))
			f := newCache(t, c, "", new(said)).Fetcher("", http.DefaultClient)
			for leaf, revoked := range map[*ca.Leaf]bool{good: false, bad: true} {
				for _, place := range []string{place, place + strings.Repeat("/x", 100)} {
					cert := *leaf.Cert
					cert.OCSPServer = []string{place}
					a, err := f.OCSP(t.Context(), &cert, root.Cert)
					wantAnswer(t, a, err, revoked)
					if revoked && a.Reason.String() != "keyCompromise" {
						t.Error(a.Reason)
					}
				}
			}
			stranger := *root.Leaf([]string{"stranger.test"}).Cert
			stranger.OCSPServer = []string{place}
			if a, err := f.OCSP(t.Context(), &stranger, root.Cert); err == nil || !strings.Contains(err.Error(), "unknown") {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// responder runs openssl ocsp and gives where it listens.
func responder(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("openssl", append([]string{"ocsp", "-port", "0"}, args...)...)
	cmd.Dir = dir
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); in.Close() })
	port := make(chan string, 1)
	go func() {
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if rest, ok := strings.CutPrefix(sc.Text(), "ACCEPT "); ok {
				where, _, _ := strings.Cut(rest, " ")
				port <- where[strings.LastIndexByte(where, ':')+1:]
			}
		}
	}()
	select {
	case p := <-port:
		return "http://127.0.0.1:" + p
	case <-time.After(10 * time.Second):
		t.Fatal("openssl ocsp does not say where it listens")
		return ""
	}
}

// openssl takes what our test responder signs, so that a verdict on it means something.
func TestOpenSSLReadsOurResponses(t *testing.T) {
	at := time.Now()
	root := ca.TestAt(t, at)
	leaf := root.Leaf([]string{"good.test"})
	r := root.Leaf([]string{"responder.test"}, ocspSigning).Delegate()
	der, err := r.Respond(at, ca.Status{Cert: leaf.Cert, Issuer: root.Cert, This: at.Add(-time.Minute), Next: at.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := revoke.JudgeOCSP(der, leaf.Cert, root.Cert, at); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	request, err := revoke.Request(leaf.Cert, root.Cert)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"r.der": der, "q.der": request, "leaf.pem": leaf.CertPEM(), "ca.pem": root.CertPEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("openssl", "ocsp", "-respin", "r.der", "-CAfile", "ca.pem", "-issuer", "ca.pem", "-cert", "leaf.pem")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "Response verify OK") || !strings.Contains(string(out), "leaf.pem: good") {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd = exec.Command("openssl", "ocsp", "-reqin", "q.der", "-req_text")
	cmd.Dir = dir
	if out, _ := cmd.CombinedOutput(); !strings.Contains(string(out), strings.ToUpper(leaf.Cert.SerialNumber.Text(16))) {
		t.Fatalf("%s", out)
	}
}
