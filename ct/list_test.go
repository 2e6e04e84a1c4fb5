package ct_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/ct"
	"sallyport/internal/ca"
)

func TestParseList(t *testing.T) {
	r := newRig(t)
	list, err := ct.ParseList(ca.LogList(now, r.all...))
	if err != nil {
		t.Fatal(err)
	}
	if !list.Time.Equal(now) || len(list.Logs) != len(r.all) {
		t.Fatalf("%d logs at %s", len(list.Logs), list.Time)
	}
	for _, l := range list.Logs {
		if l.Tiled != (l.Description == "Tile") || l.State == ct.Retired && !l.Since.Equal(r.retired.Since) {
			t.Errorf("%+v", l)
		}
	}
}

// As Google writes it, with what is not read here.
func TestParseListOfGoogle(t *testing.T) {
	const text = `{"version":"87.3","log_list_timestamp":"2026-05-20T12:55:13Z","operators":[{"name":"Google","email":["google-ct-logs@googlegroups.com"],"logs":[
	{"description":"Google 'Argon2026h2' log","log_id":"1219ENGn9XfCx+lf1wC/+YLJM1pl4dCzAXMXwMjFaXc=","key":"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKjpni/66DIYrSlGK6Rf+e6F2c/28ZUvDJ79N81+gyimAESAyeNZ++TRgjHWg9TVQnKHTSU0T1TtqDupFnSQTIg==",
	"url":"https://ct.googleapis.com/logs/us1/argon2026h2/","mmd":86400,"state":{"readonly":{"timestamp":"2024-11-15T10:39:22Z","final_tree_head":{"sha256_root_hash":"AA==","tree_size":7}}},
	"temporal_interval":{"start_inclusive":"2026-07-01T00:00:00Z","end_exclusive":"2027-01-01T00:00:00Z"}}],"tiled_logs":[]}]}`
	list, err := ct.ParseList([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if l := list.Logs[0]; l.State != ct.ReadOnly || l.Start.Month() != time.July || l.Operator != "Google" {
		t.Errorf("%+v", l)
	}
}

func TestParseListRefuses(t *testing.T) {
	r := newRig(t)
	good := string(ca.LogList(now, r.a))
	key := string(ca.LogList(now, r.b))
	_, b64, _ := strings.Cut(key, `"key": "`)
	b64, _, _ = strings.Cut(b64, `"`)
	_, own, _ := strings.Cut(good, `"key": "`)
	own, _, _ = strings.Cut(own, `"`)
	for says, text := range map[string]string{
		"no list of logs in JSON":         "<html>",
		"without log_list_timestamp":      strings.Replace(good, "log_list_timestamp", "x", 1),
		"a list without any log":          `{"log_list_timestamp":"2026-06-01T12:00:00Z","operators":[]}`,
		"is not the SHA-256 of its key":   strings.Replace(good, own, b64, 1),
		"an operator without a name":      strings.Replace(good, `"name": "A"`, `"name": ""`, 1),
		"stands in the list twice":        string(ca.LogList(now, r.a, r.a)),
		"operators[0].logs[1]":            string(ca.LogList(now, r.a, r.a)),
		"has 2 states":                    strings.Replace(good, `"usable":`, `"rejected": {"timestamp":"2026-06-01T12:00:00Z"}, "usable":`, 1),
		"since when is not said":          strings.Replace(strings.Replace(good, `"usable"`, `"retired"`, 1), `"timestamp":`, `"x":`, 1),
		"bytes; at most 4194304 are read": strings.Repeat(" ", ct.MaxList+1),
		"ends before it begins":           strings.Replace(good, `"mmd"`, `"temporal_interval":{"start_inclusive":"2026-06-01T12:00:00Z","end_exclusive":"2026-06-01T12:00:00Z"}, "mmd"`, 1),
	} {
		if _, err := ct.ParseList([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

func pub(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestVerifyList(t *testing.T) {
	list := ca.LogList(now, newRig(t).all...)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(list)
	keys, err := ct.ParseKeys(append(pub(t, ec), pub(t, rs)...))
	if err != nil || len(keys) != 2 {
		t.Fatal(len(keys), err)
	}
	for i, k := range []crypto.Signer{ec, rs} {
		sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if err := ct.VerifyList(list, sig, keys); err != nil {
			t.Error(err)
		}
		if ct.VerifyList(list, sig, keys[1-i:2-i]) == nil || ct.VerifyList(list, sig, nil) == nil || ct.VerifyList(append(bytes.Clone(list), ' '), sig, keys) == nil {
			t.Error("a signature by nobody verifies")
		}
	}
}

// As openssl signs it, since the list of one's own is signed by that.
func TestVerifyListOfOpenSSL(t *testing.T) {
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	list := ca.LogList(now, newRig(t).all...)
	if err := os.WriteFile(filepath.Join(dir, "list.json"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	run("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key.pem")
	run("pkey", "-in", "key.pem", "-pubout", "-out", "pub.pem")
	run("dgst", "-sha256", "-sign", "key.pem", "-out", "list.sig", "list.json")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	keys, err := ct.ParseKeys(read("pub.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ct.VerifyList(list, read("list.sig"), keys); err != nil {
		t.Error(err)
	}
}

func TestParseKeysRefuses(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for says, text := range map[string][]byte{
		"neither ECDSA nor RSA": pub(t, ed),
		"not P-256":             pub(t, p384),
		`type "CERTIFICATE"`:    ca.TestAt(t, now).CertPEM(),
		"a key that checks":     pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte{1}}),
	} {
		if _, err := ct.ParseKeys(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	if keys, err := ct.ParseKeys([]byte("{}")); len(keys) > 0 || err != nil {
		t.Error(keys, err)
	}
}
