package main

import (
	"crypto/tls"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// secured has u serve over TLS as well, by a certificate of by's, and gives where
// its list is then.
func (u *publisher) secured(t testing.TB, by *ca.Tester) string {
	t.Helper()
	server := httptest.NewUnstartedServer(u)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{by.Leaf([]string{"127.0.0.1"}).TLS()}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL + "/v3/log_list.json"
}

// A list over TLS, first asked for by a process that has confined itself already: its
// trust anchors and its names are read from within the sandbox.
func TestLogListOverTLS(t *testing.T) {
	t.Parallel()
	s, l := newStock(t), newLogs(t)
	u := newPublisher(t, l.list(2*day))
	trusted, strange := u.secured(t, s.Tester), u.secured(t, ca.Test(t))
	file := write(t, "sallyport.yaml", "")
	key := filepath.Join(filepath.Dir(file), "key.pem") // in a folder that the start has named
	public, err := os.ReadFile(u.public)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(key, string(public))
	state := filepath.Join(filepath.Dir(file), "state")
	listener := fmt.Sprintf("state_dir: %s\nlisteners: [{from: \"tcp://127.0.0.1:0\", to: {addr: \"tls://%s\", name: a.x.test, ca: %s, ct: %%s}}]\n",
		state, s.shows(t, "tls", yesterday(l.a, l.b)), s.anchors)
	put(file, fmt.Sprintf(listener, "off"))
	p := testnet.StartIn(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+s.anchors)
	}, "run", "-c", file)
	p.WaitLog("sandboxed")
	reloads := 0
	reload := func() {
		t.Helper()
		reloads++
		p.Signal(syscall.SIGHUP)
		p.LoggedAs("reloaded by a signal", reloads, func(l testnet.Record) bool { return l.Text("msg") == "reloaded" && l.Text("cause") == bySignal })
	}
	from := func(url string) {
		t.Helper()
		put(file, fmt.Sprintf("ct_log_list: [%s, \"%s\"]\n"+listener, key, url, "require"))
		reload()
	}
	from(trusted)
	if r := p.Logged("list of CT logs", 1); r.Text("from") != trusted || r.Num("age_days") != 2 {
		t.Errorf("%v", r)
	}
	mustAsk(t, p.Addr(""), "level", "level")
	wantFields(t, p.Reason("ok"), testnet.Record{"out_peer_by": "pkix,ct", "out_ct_logs": "Alder; Birch"})
	u.gone.Store(true)
	reload()
	mustAsk(t, p.Addr(""), "level", "level")
	u.gone.Store(false)
	from(strange)
	p.WaitLog("certificate signed by unknown authority")
	if _, err := ask(p.Addr(""), "level"); err == nil {
		t.Error("served by a list that nobody vouches for")
	}
	p.Reason("ct_no_list")
}
