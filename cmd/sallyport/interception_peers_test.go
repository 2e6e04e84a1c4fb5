package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/testnet"
)

// The rows about TLS itself by servers of OpenSSL and GnuTLS, as far as these still
// have what is wrong with them.
func TestInterceptionByPeers(t *testing.T) {
	s := newStock(t)
	gnutls := func(cert, priority string) *daemon { return s.gnutlsServ(t, cert, "--priority", priority) }
	rows := []struct {
		name    string
		server  *daemon
		tls     string
		want    string
		resumes bool
	}{
		{"IT-02 TLS 1.0", s.sServer(t, s.ecdsa, "-tls1"), "", "server_alert", false},
		{"IT-02 TLS 1.1", s.sServer(t, s.ecdsa, "-tls1_1"), "", "server_alert", false},
		{"IT-02 TLS 1.1, asked for", s.sServer(t, s.ecdsa, "-tls1_1"), "old", "", true},
		{"IT-03 DHE alone", s.sServer(t, s.rsa, "-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256"), "old", "server_alert", false},
		{"IT-04 no encryption", s.sServer(t, s.rsa, "-tls1_2", "-cipher", "NULL-SHA256:@SECLEVEL=0"), "old", "server_alert", false},
		{"IT-04 nobody's key", s.sServer(t, s.rsa, "-tls1_2", "-cipher", "ADH-AES128-GCM-SHA256:@SECLEVEL=0"), "old", "server_alert", false},
		{"IT-05 RSA key exchange alone", s.sServer(t, s.rsa, "-tls1_2", "-cipher", "AES128-GCM-SHA256"), "", "server_alert", false},
		{"IT-05 RSA key exchange, asked for", s.sServer(t, s.rsa, "-tls1_2", "-cipher", "AES128-GCM-SHA256"), "old", "", true},
		{"IT-06 CBC alone", s.sServer(t, s.ecdsa, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"), "", "server_alert", false},
		{"IT-09 no extended master secret", gnutls(s.ecdsa, "NORMAL:-VERS-TLS1.3:%NO_SESSION_HASH"), "", "", false},
		{"IT-09 extended master secret", gnutls(s.ecdsa, "NORMAL:-VERS-TLS1.3"), "", "", true},
	}
	file := fmt.Sprintf("defaults: {to: {name: inner.x.test, ca: %s}}\nlisteners:\n", s.anchors)
	for i, r := range rows {
		for _, m := range modes {
			file += fmt.Sprintf("- {%s, name: %s%d, to: {addr: \"tls://%s\", tls: %s}}\n", m.from(s), m, i, r.server.addr, orDefault(r.tls, "intermediate"))
		}
	}
	p := testnet.Start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(len(rows) * len(modes))
	seen := 0
	for i, r := range rows {
		for n := range 2 * len(modes) {
			m, again := modes[n/2], n%2 == 1
			name := fmt.Sprintf("%s%d", m, i)
			answer, err := m.ask(s, p.Addr(name), "level")
			if (r.want == "") != (err == nil && strings.Contains(answer, "level")) {
				t.Errorf("%s, %s: %q, %v", r.name, m, answer, err)
			}
			seen++
			record := p.Flows(seen)[seen-1]
			if r.want != "" {
				wantFields(t, record, testnet.Record{"listener": name, "reason": r.want, "stage": "outbound"})
				continue
			}
			wantFields(t, record, testnet.Record{"listener": name, "reason": "ok", "out_resumed": r.resumes && again})
		}
	}
}

// mode is how clients come to a program that speaks TLS with its server.
type mode string

// modes are the two of them: without TLS and with it.
var modes = []mode{"encrypt", "bridge"}

// from is the start of a listener in a file.
func (m mode) from(s *stock) string {
	if m == "encrypt" {
		return `from: "tcp://127.0.0.1:0"`
	}
	return fmt.Sprintf("from: \"tls://127.0.0.1:0\", cert: %q", s.ecdsa)
}

// ask is [ask], as a client of that mode.
func (m mode) ask(s *stock, addr, line string) (string, error) {
	if m == "encrypt" {
		return ask(addr, line)
	}
	return askTLS(addr, line, s.Pool())
}

func orDefault(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

// A server that wants another handshake in the midst of a connection ends it (IT-08).
func TestInterceptionOfRenegotiation(t *testing.T) {
	s := newStock(t)
	for n := range 2 * len(modes) {
		m, command := modes[n/2], []string{"r\n", "R\n"}[n%2] // plain, and with a certificate asked for
		d := startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
			return exec.Command(tool(t, "openssl"), "s_server", "-accept", "127.0.0.1:"+port, "-cert", s.ecdsa, "-key", keyOf(s.ecdsa), "-tls1_2")
		})
		p := testnet.Start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf("listeners:\n- {%s, to: {addr: \"tls://%s\", ca: %s, name: inner.x.test}}\n",
			m.from(s), d.addr, s.anchors)))
		client := plainPeer(dial(t, p.Addr("")))
		if m == "bridge" {
			client = tlsPeer(client, tls.Client, &tls.Config{RootCAs: s.Pool(), ServerName: "a.x.test", CurvePreferences: quick})
		}
		fmt.Fprint(client, "first\n")
		eventually(t, "the server to have the line", func() bool { return strings.Contains(d.out.String(), "first") })
		fmt.Fprint(d.stdin, command)
		if _, how := client.rest(); how != wasReset {
			t.Errorf("%s, %q: the client saw %s", m, command, how)
		}
		r := p.Flows(1)[0]
		if r.Text("reason") != "server_protocol_error" || r.Text("stage") != "relay" {
			t.Errorf("%s, %q: the record is %v", m, command, r)
		}
	}
}

// Early data, sent with a ticket of another server's, goes nowhere (IT-17).
func TestInterceptionOfEarlyData(t *testing.T) {
	s := newStock(t)
	other := startDaemon(t, syscall.SIGTERM, func(port string) *exec.Cmd {
		return exec.Command(tool(t, "openssl"), "s_server", "-accept", "127.0.0.1:"+port, "-cert", s.ecdsa, "-key", keyOf(s.ecdsa),
			"-tls1_3", "-early_data", "-max_early_data", "16384")
	})
	session := filepath.Join(t.TempDir(), "session")
	client := exec.Command(tool(t, "openssl"), "s_client", "-connect", other.addr, "-servername", "a.x.test", "-tls1_3", "-sess_out", session)
	in, err := client.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a ticket", func() bool { info, err := os.Stat(session); return err == nil && info.Size() > 0 })
	in.Close()
	client.Wait()
	early := write(t, "early", "early data\n")
	for _, to := range [][]string{{"tcp://" + backend(t, "web")},
		{"tls://" + s.sServer(t, s.ecdsa).addr, "--to-ca", s.anchors, "--to-name", "inner.x.test"}} {
		p := testnet.Start(t, append([]string{"proxy", "tls://127.0.0.1:0", "--cert", s.dir}, to...)...)
		out, _ := s.sClient(t, p.Addr(""), "a.x.test", "-sess_in", session, "-early_data", early)
		if !strings.Contains(out, "Early data was rejected") && !strings.Contains(out, "unsupported extension") || strings.Contains(out, "early data\n") {
			t.Errorf("early data was not refused:\n%s", out)
		}
		if r := p.Flows(1)[0]; r.Num("up") != 0 {
			t.Errorf("it was passed on: %v", r)
		}
	}
}
