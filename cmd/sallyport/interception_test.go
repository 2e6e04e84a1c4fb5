package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testca"
	"sallyport/internal/testnet"
)

// presentation is one chain before the program, in one mode and profile.
type presentation struct {
	testca.Case
	profile string
	bridge  bool
	sni     string // what the program sends, and in a bridge what its client sends
}

// interception is the program in front of a server with many chains.
type interception struct {
	*testnet.Program
	server *testca.Server
	pool   *tls.Config
}

// presentations are all rows of the table in both modes; where the profiles agree,
// package verify has tried the others.
func presentations(cases []testca.Case) (list []presentation) {
	for i, c := range cases {
		for j, profile := range testca.Profiles() {
			if j > 0 && c.Want.Same() && c.Notes == nil {
				continue
			}
			for _, bridge := range []bool{false, true} {
				list = append(list, presentation{c, profile, bridge, fmt.Sprintf("n%d-%s-%t.row.test", i, profile, bridge)})
			}
		}
	}
	return list
}

// intercept starts the program with a route for each of list.
func intercept(t *testing.T, list []presentation) *interception {
	t.Helper()
	dir, site := t.TempDir(), ca.Test(t)
	certs, keys := []string{}, []string{}
	serves := func(l *ca.Leaf) {
		cert, key := site.Files(l)
		certs, keys = append(certs, cert), append(keys, key)
	}
	serves(site.Leaf([]string{"*.row.test"}))
	server, err := testca.Serve(t.Context().Done())
	if err != nil {
		t.Fatal(err)
	}
	var encrypt, bridge strings.Builder
	now, made := time.Now(), map[string]*testca.Made{}
	for i, p := range list {
		m := made[p.Name()]
		if m == nil {
			m = p.Make(t, now)
			made[p.Name()] = m
			if m.Own != nil {
				serves(m.Own)
			}
		}
		server.Present(p.sni, m)
		anchors := filepath.Join(dir, fmt.Sprintf("%d.pem", i))
		if err := os.WriteFile(anchors, m.AnchorsPEM(), 0o644); err != nil {
			t.Fatal(err)
		}
		to := fmt.Sprintf("{addr: %q, name: %q, sni: %q, ca: %q, profile: %s}", "tls://"+server.Addr, m.Name, p.sni, anchors, p.profile)
		if p.bridge {
			fmt.Fprintf(&bridge, "  - {match: {sni: %q}, to: %s}\n", p.sni, to)
		} else {
			fmt.Fprintf(&encrypt, "- {from: \"tcp://127.0.0.1:0\", name: %q, to: %s}\n", p.sni, to)
		}
	}
	file := fmt.Sprintf("listeners:\n- from: tls://127.0.0.1:0\n  name: bridge\n  cert: [%s]\n  key: [%s]\n  routes:\n%s%s", strings.Join(certs, ", "), strings.Join(keys, ", "), &bridge, &encrypt)
	p := start(t, "run", "-c", write(t, "sallyport.yaml", file))
	p.WaitListeners(1 + strings.Count(encrypt.String(), "- {from"))
	return &interception{p, server, &tls.Config{RootCAs: site.Pool(), CurvePreferences: quick}}
}

// Every chain of the table, in both modes, on a first, a second and a resumed
// connection: the verdict, its reason, and not a byte of the client's to a server
// that was refused.
func TestInterceptionOfCertificates(t *testing.T) {
	list := presentations(testca.Cases())
	s := intercept(t, list)
	for _, p := range list {
		t.Run(fmt.Sprintf("%s, %s, bridge %t", p.Name(), p.profile, p.bridge), func(t *testing.T) {
			t.Parallel()
			for i, step := range testca.Steps() {
				s.present(t, &p, step)
				if got := s.server.Came(p.sni); got != i+1 {
					t.Errorf("%s: %d connections reached the server, want %d", step.Name, got, i+1)
				}
			}
			want := ""
			if p.Want.Of(p.profile) == "" {
				want = strings.Repeat(line(p.sni), len(testca.Steps()))
			}
			if got := s.server.Told(p.sni); got != want {
				t.Errorf("the server was told %q, want %q", got, want)
			}
		})
	}
}

func line(sni string) string { return "secret of " + sni + "\n" }

// present makes one connection and judges its record.
func (s *interception) present(t *testing.T, p *presentation, step testca.Step) {
	t.Helper()
	want := p.Want.Of(p.profile)
	from, answer, err := s.ask(p)
	if want == "" && answer != line(p.sni) || want != "" && answer != "" {
		t.Errorf("%s: the client got %q, %v", step.Name, answer, err)
	}
	r := s.Flow("of "+from, func(r testnet.Record) bool { return strings.HasPrefix(r.Text("client"), from+":") })
	if want != "" {
		if r.Text("reason") != want || r.Text("stage") != "outbound" || r.Text("fault") != "server" || r["out_version"] != nil {
			t.Errorf("%s: the record is %v, want reason %s", step.Name, r, want)
		}
		return
	}
	if r.Text("out_version") != tls.VersionName(step.Version) || r["out_resumed"] != step.Resumed || r.Text("stage") == "outbound" {
		t.Errorf("%s: the record is %v", step.Name, r)
	}
	if note, got := p.Notes[p.profile], r.Text("out_notes"); (note == "") != (got == "") || !strings.Contains(got, note) {
		t.Errorf("%s: the record notes %q, want %q", step.Name, got, note)
	}
}

// ask sends p's line from an address that no other client has.
func (s *interception) ask(p *presentation) (from, answer string, err error) {
	n := callers.Add(1)
	ip := net.IPv4(127, 1+byte(n>>16), byte(n>>8), byte(n))
	to := p.sni
	if p.bridge {
		to = "bridge"
	}
	d := net.Dialer{Timeout: bound, LocalAddr: &net.TCPAddr{IP: ip}}
	c, err := d.Dial("tcp", s.Addr(to))
	if err != nil { // a reset can come before the dialler has seen that it is connected
		return ip.String(), "", err
	}
	client := plainPeer(c)
	if p.bridge {
		cfg := s.pool.Clone()
		cfg.ServerName = p.sni
		client = tlsPeer(c, tls.Client, cfg)
	}
	defer client.close()
	if _, err := io.WriteString(client, line(p.sni)); err != nil {
		return ip.String(), "", err
	}
	answer, err = bufio.NewReader(client).ReadString('\n')
	return ip.String(), answer, err
}

// A server is judged by what it shows, each time that it shows it (IC-50).
func TestInterceptionOfAServerThatChanges(t *testing.T) {
	var good, bad testca.Case
	for _, c := range testca.Cases() {
		switch c.Name() {
		case "IC-00 a good leaf":
			good = c
		case "IC-01 self-signed":
			bad = c
		}
	}
	both := []presentation{{good, "private", false, "plain.row.test"}, {good, "private", true, "bridge.row.test"}}
	s := intercept(t, both)
	for _, p := range both {
		first := s.server.Made(p.sni)
		for _, shown := range []testca.Case{good, bad, good, bad} {
			m := first
			if shown.Name() == bad.Name() {
				m = bad.Make(t, time.Now())
			}
			s.server.Present(p.sni, m)
			p.Case = shown
			s.present(t, &p, testca.Steps()[0])
		}
	}
}

// No session outlives a change of policy, neither to stricter nor back (IC-51).
func TestInterceptionOfASessionOverAReload(t *testing.T) {
	var odd testca.Case
	for _, c := range testca.Cases() {
		if c.Name() == "IC-25 the leaf is a CA" {
			odd = c
		}
	}
	server, err := testca.Serve(t.Context().Done())
	if err != nil {
		t.Fatal(err)
	}
	site := ca.Test(t)
	cert, key := site.Files(site.Leaf([]string{"*.row.test"}))
	rows := []presentation{{odd, "private", false, "plain.row.test"}, {odd, "private", true, "bridge.row.test"}}
	m := odd.Make(t, time.Now())
	for _, row := range rows {
		server.Present(row.sni, m)
	}
	anchors := write(t, "ca.pem", string(m.AnchorsPEM()))
	text := func(profile string) string {
		to := func(sni string) string {
			return fmt.Sprintf("to: {addr: \"tls://%s\", name: good.test, sni: %s, ca: %q, profile: %s}", server.Addr, sni, anchors, profile)
		}
		return fmt.Sprintf("listeners:\n- {from: \"tcp://127.0.0.1:0\", name: plain.row.test, %s}\n- {from: \"tls://127.0.0.1:0\", name: bridge, cert: %q, key: %q, %s}\n",
			to("plain.row.test"), cert, key, to("bridge.row.test"))
	}
	file := write(t, "sallyport.yaml", text("private"))
	p := start(t, "run", "-c", file)
	p.WaitListeners(len(rows))
	s := &interception{p, server, &tls.Config{RootCAs: site.Pool(), CurvePreferences: quick}}
	present := func(step testca.Step) {
		t.Helper()
		for i := range rows {
			s.present(t, &rows[i], step)
		}
	}
	steps := testca.Steps()
	present(steps[0])
	present(steps[1]) // leaves a session
	reloaded := func(profile string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text(profile)), 0o600); err != nil {
			t.Fatal(err)
		}
		before := strings.Count(p.Stderr(), `"msg":"reloaded"`)
		p.Signal(syscall.SIGHUP)
		eventually(t, "the reload", func() bool { return strings.Count(p.Stderr(), `"msg":"reloaded"`) > before })
		for i := range rows {
			rows[i].profile = profile
		}
	}
	reloaded("strict")
	present(steps[2])
	reloaded("private")
	for _, row := range rows {
		server.Present(row.sni, m)
		server.Skip(row.sni) // the server would take a session up at once
	}
	present(steps[1]) // and is offered none
	present(steps[2])
}
