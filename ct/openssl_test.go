package ct_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/ct"
	"sallyport/internal/ca"
)

// OpenSSL verifies SCTs as well; what it says of each is what we must say.
func TestAsOpenSSLSays(t *testing.T) {
	r := newRig(t)
	// s_client has no clock of ours.
	today := time.Now().Truncate(time.Second)
	r.root = ca.TestAt(t, today)
	promise := func(l *ca.Log) ca.Promise { return ca.Promise{Log: l, At: today.Add(-day)} }
	stranger := ca.TestAt(t, today).Cert
	list, err := ct.ParseList(ca.LogList(today, r.all...))
	if err != nil {
		t.Fatal(err)
	}
	logs := new(ct.Logs)
	logs.Set(list)
	for _, c := range []struct {
		name      string
		promises  []ca.Promise
		handshake []*ca.Log
		spoil     func([]byte) []byte
	}{
		{"embedded", []ca.Promise{promise(r.a), promise(r.b)}, nil, nil},
		{"embedded, of tiles and by RSA", []ca.Promise{promise(r.tiled), promise(r.rsa)}, nil, nil},
		{"embedded, bad signature", []ca.Promise{promise(r.a), tampered(promise(r.b), flip(-1))}, nil, nil},
		{"embedded, unknown log", []ca.Promise{promise(r.a), promise(r.foreign)}, nil, nil},
		{"embedded, of the future", []ca.Promise{promise(r.a), at(promise(r.b), today.Add(day))}, nil, nil},
		{"embedded, other issuer", []ca.Promise{promise(r.a), {Log: r.b, At: today.Add(-day), Issuer: stranger}}, nil, nil},
		{"embedded, other extensions", []ca.Promise{promise(r.a), tampered(promise(r.tiled), flip(45))}, nil, nil},
		{"handshake", nil, []*ca.Log{r.a, r.tiled, r.rsa}, nil},
		{"handshake, bad signature", nil, []*ca.Log{r.a, r.b}, flip(-1)},
		{"handshake, unknown log", nil, []*ca.Log{r.a, r.foreign}, nil},
		{"both", []ca.Promise{promise(r.a)}, []*ca.Log{r.b}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var opts []ca.Option
			if c.promises != nil {
				opts = []ca.Option{ca.Embed(r.root.Cert, c.promises...)}
			}
			leaf := r.root.Leaf([]string{"a.test"}, opts...)
			e := r.shown(leaf.Cert)
			for _, l := range c.handshake {
				sct, err := l.SCT(today.Add(-day), leaf.Cert.Raw)
				if err != nil {
					t.Fatal(err)
				}
				if c.spoil != nil {
					sct = c.spoil(sct)
				}
				e.Handshake = append(e.Handshake, sct)
			}
			var ours []string
			for _, entry := range logs.Judge(e, today).Entries {
				switch {
				case entry.Log == nil:
					ours = append(ours, "unknown log")
				case entry.Err == nil:
					ours = append(ours, "valid")
				default:
					ours = append(ours, "invalid")
				}
			}
			theirs := opensslSays(t, r, leaf, e)
			slices.Sort(ours)
			slices.Sort(theirs)
			if !slices.Equal(ours, theirs) {
				t.Errorf("we say %q, openssl %q", ours, theirs)
			}
		})
	}
}

// opensslSays has s_client judge the SCTs that s_server shows.
func opensslSays(t *testing.T, r *rig, leaf *ca.Leaf, e *ct.Evidence) (verdicts []string) {
	t.Helper()
	dir := t.TempDir()
	cert, key := r.root.Files(leaf)
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	args := []string{"s_server", "-accept", addr, "-cert", cert, "-key", key, "-quiet"}
	if len(e.Handshake) > 0 {
		args = append(args, "-serverinfo", file("info.pem", ca.ServerInfo(ca.SCTList(e.Handshake...))))
	}
	server := exec.CommandContext(ctx, "openssl", args...)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	for ctx.Err() == nil {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	out, err := exec.CommandContext(ctx, "openssl", "s_client", "-connect", addr, "-CAfile", r.root.File(),
		"-ct", "-ctlogfile", file("logs.cnf", ca.OpenSSLLogs(r.all...))).CombinedOutput()
	for line := range bytes.Lines(out) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "SCT validation status: "); ok {
			verdicts = append(verdicts, v)
		}
	}
	if verdicts == nil {
		t.Fatalf("openssl judged nothing: %v\n%s", err, out)
	}
	return verdicts
}
