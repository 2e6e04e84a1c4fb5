package main

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// P-09: no variable of the environment says by whom the program fetches what it needs.
func TestEnvironmentNamesNoProxy(t *testing.T) {
	t.Parallel()
	var met atomic.Int64
	proxy := serveEach(t, func(c *net.TCPConn) { met.Add(1); c.Close() })
	asked := make(chan string, 10)
	l := listen(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- r.RequestURI:
		default:
		}
		http.NotFound(w, r)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	// Not a loopback name, to which no proxy would be asked in any case.
	host := "lists.test:" + portOf(t, l.Addr().String())
	key := write(t, "keys.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ca.TestLog(t, "one", "one").PublicKey()})))
	testnet.Launch(t, func(cmd *exec.Cmd) {
		promptly(cmd)
		for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
			cmd.Env = append(cmd.Env, name+"=http://"+proxy)
		}
	}, "proxy", "tcp://127.0.0.1:0", "tls://127.0.0.1:1", "--to-ct", "report", "--ct-log-list", "http://"+host+"/list.json", "--ct-log-list", key, "--resolve", host+":127.0.0.1")
	select {
	case uri := <-asked:
		if uri != "/list.json" && uri != "/list.sig" {
			t.Errorf("it asks for %s", uri)
		}
	case <-time.After(testnet.Patience):
		t.Error("the list is not fetched")
	}
	if n := met.Load(); n > 0 {
		t.Errorf("the proxy of the environment was asked %d times", n)
	}
}

// P-11: a session goes on for no client whose certificate was revoked meanwhile.
func TestReloadEndsSessionsOfTheRevoked(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client := s.root.Leaf([]string{"client.test"})
	crl := filepath.Join(filepath.Dir(s.anchors), "clients.crl")
	revoke := func(serials ...*big.Int) {
		t.Helper()
		der, err := s.root.CRL(time.Now(), serials, nil)
		if err == nil {
			err = os.WriteFile(crl, der, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	revoke()
	text := oneListener[:len(oneListener)-2] + fmt.Sprintf(", client: {ca: %s, crl: %s}, allow: [{dns: client.test}]}\n", s.anchors, crl)
	r := &reloader{site: s, file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, text)
	r.Program = start(t, "run", "-c", r.file)
	configs := map[string]*tls.Config{}
	for _, version := range bothVersions {
		cfg := s.clientConfig(version)
		cfg.Certificates = []tls.Certificate{client.TLS()}
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 2 {
			if cs, err := r.knock(r.Addr("a"), cfg); err != nil || cs.DidResume != (i == 1) {
				t.Fatalf("%s: %v, resumed: %v", tls.VersionName(version), err, cs.DidResume)
			}
		}
		configs[tls.VersionName(version)] = cfg
	}
	revoke(client.Cert.SerialNumber)
	r.mustReload(t, text)
	for version, cfg := range configs {
		if cs, err := r.knock(r.Addr("a"), cfg); err == nil {
			t.Errorf("%s: the revoked client is served, resumed: %v", version, cs.DidResume)
		}
	}
	r.LoggedAs("the refusals", 2, func(l testnet.Record) bool { return l.Text("reason") == "client_cert_revoked" })
}
