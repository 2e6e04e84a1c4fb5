package main

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// secrets are texts that nobody may be told, by what they are.
type secrets map[string]string

// The head of a request in which three secrets stand.
const (
	secretQuery  = "hunter-of-the-query"
	secretBearer = "hunter-of-the-bearer"
	secretCookie = "hunter-of-the-cookie"
	secretHead   = "GET /login?password=" + secretQuery + " HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer " + secretBearer + "\r\nCookie: sid=" + secretCookie + "\r\n\r\n"
)

func newSecrets(t testing.TB, s *site) secrets {
	t.Helper()
	is := secrets{"a query": secretQuery, "an Authorization": secretBearer, "a cookie": secretCookie, "a pre-shared key": pskKey, "the same in hexadecimal": hex.EncodeToString([]byte(pskKey))}
	is.key(t, s.leaf.KeyPEM())
	return is
}

func (is secrets) key(t testing.TB, pem []byte) {
	t.Helper()
	found := false
	for line := range strings.Lines(string(pem)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") && len(line) > 16 {
			found, is["the line of a key that begins with "+line[:8]] = true, line
		}
	}
	if !found {
		t.Fatal("a key without lines")
	}
}

// binary adds what is secret as bytes, as anybody might write it.
func (is secrets) binary(what string, p []byte) {
	is[what] = string(p)
	is[what+" in hexadecimal"] = hex.EncodeToString(p)
	is[what+" in base64"] = strings.TrimRight(base64.StdEncoding.EncodeToString(p), "=")
}

// Write takes lines of a key log: what stands last in each is secret.
func (is secrets) Write(line []byte) (int, error) {
	fields := strings.Fields(string(line))
	is[fmt.Sprintf("%s of handshake %d", fields[0], len(is))] = fields[len(fields)-1]
	return len(line), nil
}

func (is secrets) notIn(t testing.TB, where, text string) {
	t.Helper()
	for what, secret := range is {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s tells %s: %q", where, what, text[max(0, i-200):min(len(text), i+200)])
		}
	}
}

// P-05: whatever passes and whatever goes wrong, neither the log, at its most
// talkative, nor the metrics, nor the control socket, nor the state folder, nor the
// trace of a crash tells a secret.
func TestNoSecretIsTold(t *testing.T) {
	t.Parallel()
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	is, dir := newSecrets(t, r.site), t.TempDir()
	keylog, sock, state := filepath.Join(dir, "sslkeylog"), filepath.Join(dir, "admin.sock"), filepath.Join(dir, "state")
	psk := writePSK(t, dir, "devices.psk")
	text := fmt.Sprintf("log: {level: debug, format: json}\nmetrics: tcp://127.0.0.1:0\nadmin: unix:%s\nstate_dir: %s\nlisteners:\n", sock, state)
	for _, l := range []string{
		"name: offload, from: 'tls://127.0.0.1:0', cert: CERT, key: KEY, to: ECHO",
		"name: old, from: 'tls://127.0.0.1:0', cert: CERT, key: KEY, to: ECHO, tls: {max: 1.2, record: off}",
		"name: mutual, from: 'tls://127.0.0.1:0', cert: CERT, key: KEY, client: {ca: " + r.anchors + "}, allow: [{dns: nobody.test}], to: ECHO",
		"name: proxied, from: 'tls://127.0.0.1:0', cert: CERT, key: KEY, proxy_protocol: require, proxy_trust: [127.0.0.0/8], to: ECHO",
		"name: closed, from: 'tls://127.0.0.1:0', cert: CERT, key: KEY, to: 'tcp://127.0.0.1:1'",
		"name: splice, from: 'tls://127.0.0.1:0', action: splice, to: ECHO",
		"name: plain, from: 'tcp://127.0.0.1:0', to: ECHO",
		"name: wrong, from: 'tcp://127.0.0.1:0', to: {addr: 'tls://" + r.echo + "', ca: " + r.anchors + ", name: a.test}",
		"name: dtls, from: 'dtls://127.0.0.1:0', psk: " + psk + ", to: 'udp://" + packetEcho(t) + "'",
	} {
		text += "  - {" + l + "}\n"
	}
	r.write(t, text)
	r.Program = testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "SSLKEYLOGFILE="+keylog, "GOTRACEBACK=all")
	}, "run", "-c", r.file)
	r.WaitListeners(9)

	cfg := r.clientConfig(tls.VersionTLS13)
	cfg.KeyLogWriter = is
	open := r.tell(t, "offload", cfg) // which stays
	defer open.Close()
	for _, name := range []string{"offload", "old", "mutual", "proxied", "closed"} {
		r.tell(t, name, cfg).Close()
	}
	for _, name := range []string{"offload", "mutual", "proxied", "splice", "plain", "wrong"} {
		r.tell(t, name, nil).Close()
	}
	near := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+r.Addr("dtls"), "--to-psk", psk, "--to-psk-identity", "dev1", "--log-level", "debug")
	mustEcho(t, dialUDP(t, near.Addr("")), []byte(secretHead))
	bad := start(t, "proxy", "udp://127.0.0.1:0", "dtls://"+r.Addr("dtls"), "--to-psk", psk, "--to-psk-identity", "dev0", "--log-level", "debug", "--timeouts-handshake", "1s")
	dialUDP(t, bad.Addr("")).Write([]byte(secretHead))
	// Of each kind of listener there is a record; then all that went wrong is in the log.
	for _, name := range []string{"offload", "old", "mutual", "proxied", "closed", "splice", "plain", "wrong"} {
		r.Flow(name, func(l testnet.Record) bool { return l.Text("listener") == name })
	}

	key, err := os.ReadFile(r.key)
	if err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(filepath.Dir(r.key), "broken.key")
	for _, what := range [][]byte{key[:len(key)/2], bytes.ToUpper(key), append([]byte("junk\n"), key[30:]...)} {
		if err := os.WriteFile(broken, what, 0o600); err != nil {
			t.Fatal(err)
		}
		is.key(t, what)
		r.write(t, strings.ReplaceAll(text, "key: KEY", "key: "+broken))
		r.mustKeep(t)
	}
	inline := strings.ReplaceAll(string(key), "\n", "")
	for _, wrong := range []string{
		strings.Replace(text, "key: KEY", "key: '"+inline+"'", 1),
		strings.Replace(text, "cert: CERT, key: KEY", "cert: CERT, kee: '"+inline+"'", 1),
		strings.Replace(text, "to: ECHO", "to: 'tcp://admin:"+secretBearer+"@127.0.0.1:1'", 1),
		text + "ct_log_list: 'https://admin:" + secretBearer + "@127.0.0.1:1/list.json'\n",
		strings.Replace(text, psk, broken, 1),
	} {
		// KEY is of a key's label, too.
		r.write(t, strings.ReplaceAll(wrong, inline, "INLINE"))
		whole, err := os.ReadFile(r.file)
		if err == nil {
			err = os.WriteFile(r.file, []byte(strings.ReplaceAll(string(whole), "INLINE", inline)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		r.mustKeep(t)
		p := testnet.Launch(t, promptly, "check", "-c", r.file)
		p.Wait()
		is.notIn(t, "check", p.Stderr())
	}
	r.mustReload(t, text)

	for _, ask := range [][]string{{"status"}, {"flows"}, {"flows", "--json"}, {"status", "--json"}, {"pprof", "goroutine"}, {"pprof", "heap"}} {
		out, err := commanded(t, sock, ask...)
		if err != nil {
			t.Errorf("%v: %v", ask, err)
		}
		if z, err := gzip.NewReader(strings.NewReader(out)); err == nil {
			plain, _ := io.ReadAll(z)
			out = string(plain)
		}
		is.notIn(t, strings.Join(ask, " "), out)
	}
	is.notIn(t, "explain", mustExecute(t, "", testnet.Binary(t), "explain", "-c", r.file))
	_, page := curl(t, "http://"+paneAddr(r.Program, "metrics")+"/metrics")
	is.notIn(t, "the page of metrics", page)
	r.inFolder(t, is, dir, filepath.Base(psk))
	if _, err := os.Stat(keylog); err == nil {
		t.Error("SSLKEYLOGFILE was followed")
	}

	ticket, err := os.ReadFile(filepath.Join(state, "tickets.secret"))
	if err != nil {
		t.Fatal(err)
	}
	is.binary("the secret of tickets", ticket)
	r.Signal(syscall.SIGABRT)
	r.Wait()
	if !strings.Contains(r.Stderr(), "SIGABRT") {
		t.Error("there is no trace")
	}
	for who, p := range map[string]*testnet.Program{"the program": r.Program, "its client": near, "one with a wrong key": bad} {
		is.notIn(t, who, p.Stderr())
	}
	if len(is) < 15 {
		t.Errorf("only %d secrets: %v", len(is), is)
	}
}

// tell sends the secret head to a listener, over TLS where there is a cfg, and takes
// what comes; how that ends is not asked.
func (r *reloader) tell(t testing.TB, name string, cfg *tls.Config) net.Conn {
	t.Helper()
	c := dial(t, r.Addr(name))
	c.SetDeadline(time.Now().Add(bound))
	if name == "proxied" && cfg != nil {
		fmt.Fprintf(c, "PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n")
	}
	if cfg != nil {
		cfg = cfg.Clone()
		if name == "old" {
			cfg.MaxVersion = tls.VersionTLS12
		}
		c = tls.Client(c, cfg)
	}
	if _, err := io.WriteString(c, secretHead); err == nil && name != "splice" && (cfg != nil || name == "plain") {
		io.ReadFull(c, make([]byte, len(secretHead)))
	}
	return c
}

// inFolder looks into all files below dir, but for that one and the secret of tickets.
func (r *reloader) inFolder(t testing.TB, is secrets, dir, but string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || d.Name() == but {
			return err
		}
		data, err := os.ReadFile(path)
		is.notIn(t, path, string(data))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
