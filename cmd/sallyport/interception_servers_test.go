package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"sallyport/internal/ca"
	"sallyport/internal/testca"
	"sallyport/internal/testnet"
)

// Every server of the table, in both modes, three times: the verdict, its reason,
// not a byte of the client's to one that was refused, and an end to every flood.
func TestInterceptionOfServers(t *testing.T) {
	root := ca.Test(t)
	cert, key := root.Files(root.Leaf([]string{"*.row.test"}))
	rows := testca.Servers()
	servers := make([]*testca.Running, len(rows))
	var encrypt, bridge strings.Builder
	for i, c := range rows {
		servers[i] = c.Start(t, root, t.Context().Done())
		to, timeouts := fmt.Sprintf("addr: \"tls://%s\", name: good.test, ca: %q", servers[i].Addr, root.File()), "{}"
		if c.TLS != "" {
			to += ", tls: " + c.TLS
		}
		alpn := ""
		if c.ALPN != nil {
			alpn = fmt.Sprintf(", alpn: [%s]", strings.Join(c.ALPN, ", "))
		}
		if c.Want == "server_handshake_timeout" {
			timeouts = "{handshake: 1s}"
		}
		fmt.Fprintf(&bridge, "  - {match: {sni: \"n%d.row.test\"}, timeouts: %s, to: {%s}}\n", i, timeouts, to)
		fmt.Fprintf(&encrypt, "- {from: \"tcp://127.0.0.1:0\", name: n%d, timeouts: %s, to: {%s%s}}\n", i, timeouts, to, alpn)
	}
	p := start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf("listeners:\n- from: tls://127.0.0.1:0\n  name: bridge\n  cert: %s\n  key: %s\n  routes:\n%s%s",
		cert, key, &bridge, &encrypt)))
	p.WaitListeners(1 + len(rows))
	clear := &tls.Config{RootCAs: root.Pool(), CurvePreferences: quick}
	for i, c := range rows {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			want := 0
			for n := range 3 {
				for _, bridged := range []bool{false, true} {
					var cfg *tls.Config
					to := fmt.Sprintf("n%d", i)
					if bridged {
						cfg, to = clear.Clone(), "bridge"
						cfg.ServerName, cfg.NextProtos = fmt.Sprintf("n%d.row.test", i), c.ALPN
					}
					knockAt(t, p, c, to, cfg, n > 0)
					want++
				}
			}
			said := strings.Repeat(secret, want)
			if c.Want != "" && !c.Late {
				said = ""
			}
			if got := servers[i].Told(); got != said {
				t.Errorf("the server was told %q", got)
			}
			if strings.Contains(servers[i].Heard(), strings.TrimSpace(secret)) {
				t.Error("the server heard it in clear")
			}
		})
	}
	t.Cleanup(func() {
		if kib := status(t, p, "VmHWM"); kib > 400<<10 { // under the race detector
			t.Errorf("the program took %d KiB at its highest", kib)
		}
	})
}

const secret = "the secret of its client\n"

// knockAt makes one connection to the listener and judges its record.
func knockAt(t *testing.T, p *testnet.Program, c testca.ServerCase, to string, cfg *tls.Config, again bool) {
	t.Helper()
	n := callers.Add(1)
	ip := net.IPv4(127, 1+byte(n>>16), byte(n>>8), byte(n))
	d := net.Dialer{Timeout: bound, LocalAddr: &net.TCPAddr{IP: ip}}
	answer := ""
	if conn, err := d.Dial("tcp", p.Addr(to)); err == nil { // a reset may come first
		client := plainPeer(conn)
		if cfg != nil {
			client = tlsPeer(conn, tls.Client, cfg)
		}
		if _, err := io.WriteString(client, secret); err == nil {
			answer, _ = bufio.NewReader(client).ReadString('\n')
		}
		client.close()
	}
	if (c.Want == "") != (answer == secret) || c.Want != "" && answer != "" {
		t.Errorf("%s: the client got %q", to, answer)
	}
	r := p.Flow("of "+ip.String(), func(r testnet.Record) bool { return strings.HasPrefix(r.Text("client"), ip.String()+":") })
	stage := r.Text("stage")
	switch {
	case c.Want == "":
		if stage == "outbound" || r["out_resumed"] != again {
			t.Errorf("%s: the record is %v", to, r)
		}
	case r.Text("reason") != c.Want || r.Text("fault") != "server" || stage != map[bool]string{false: "outbound", true: "relay"}[c.Late]:
		t.Errorf("%s: the record is %v, want %s", to, r, c.Want)
	}
	if ms := r.Num("ms"); ms > 5000 || c.Want == "server_handshake_timeout" && ms < 900 {
		t.Errorf("%s: it took %v ms", to, ms)
	}
}
