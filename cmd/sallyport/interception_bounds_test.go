package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testca"
	"sallyport/internal/testnet"
)

// cpu is what the process has used so far, user and system.
func cpu(t testing.TB, p *testnet.Program) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// resetPeak has VmHWM begin anew.
func resetPeak(t testing.TB, p *testnet.Program) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Pid()), []byte("5"), 0o200); err != nil {
		t.Fatal(err)
	}
}

// Huge certificate messages cost a second of a processor's time and 32 MiB at
// most, and that under the race detector (F-12).
func TestFaultHugeCertificates(t *testing.T) {
	var huge []testca.Case
	for _, c := range testca.Cases() {
		if c.ID == "IC-38" {
			huge = append(huge, c)
		}
	}
	var list []presentation
	for _, p := range presentations(huge) {
		if p.profile == "private" {
			list = append(list, p)
		}
	}
	s := intercept(t, list)
	for _, p := range list {
		resetPeak(t, s.Program)
		used, size := cpu(t, s.Program), status(t, s.Program, "VmRSS")
		for i := range 2 {
			s.present(t, &p, testca.Steps()[i])
		}
		used, size = cpu(t, s.Program)-used, status(t, s.Program, "VmHWM")-size
		t.Logf("%s, bridge %t: %v, %d KiB", p.Name(), p.bridge, used, size)
		if used > time.Second || size > 32<<10 {
			t.Errorf("%s, bridge %t: two connections took %v and %d KiB", p.Name(), p.bridge, used, size)
		}
	}
}

// A clock that jumps: verdicts follow within a second, sessions that were good as
// well, and no flow that is open ends of it (F-21).
func TestFaultClockJumps(t *testing.T) {
	clock := write(t, "clock", "0s")
	server, err := testca.Serve(t.Context().Done())
	if err != nil {
		t.Fatal(err)
	}
	good := testca.Cases()[0].Make(t, time.Now())
	anchors := write(t, "ca.pem", string(good.AnchorsPEM()))
	p := start(t, "run", "-c", write(t, "sallyport.yaml", fmt.Sprintf(`
unsafe: {clock_offset: "@%s"}
defaults: {to: {addr: "tls://%s", name: %s, sni: clock.row.test, ca: %s}}
listeners:
- {from: "tcp://127.0.0.1:0", name: encrypt}
`, clock, server.Addr, good.Name, anchors)))
	knock := func() testnet.Record {
		t.Helper()
		client := plainPeer(dial(t, p.Addr("encrypt")))
		io.WriteString(client, "line\n")
		bufio.NewReader(client).ReadString('\n')
		addr := client.bare.LocalAddr().String()
		client.close()
		return p.Flow("of "+addr, func(r testnet.Record) bool { return r.Text("client") == addr })
	}
	server.Present("clock.row.test", good)
	open := plainPeer(dial(t, p.Addr("encrypt")))
	open.SetDeadline(time.Now().Add(2 * testnet.Patience))
	io.WriteString(open, "open") // no line yet: the server waits
	eventually(t, "the open flow to reach the server", func() bool { return server.Came("clock.row.test") == 1 })
	knock() // leaves a session
	for _, jump := range []struct{ by, want string }{
		{"24h", ""}, {"-24h", "cert_not_yet_valid"}, {"87600h", "cert_expired"}, {"0s", ""},
	} {
		server.Present("clock.row.test", good)
		if err := os.WriteFile(clock, []byte(jump.by), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1100 * time.Millisecond) // what is promised is a second
		r := knock()
		if reason := r.Text("reason"); jump.want != "" && (reason != jump.want || r.Text("stage") != "outbound") || jump.want == "" && r.Text("stage") == "outbound" {
			t.Errorf("after a jump to %s: %v, want %q", jump.by, r, jump.want)
		}
	}
	io.WriteString(open, "\n")
	if line, err := bufio.NewReader(open).ReadString('\n'); line != "open\n" {
		t.Errorf("the flow that was open got %q, %v", line, err)
	}
}
