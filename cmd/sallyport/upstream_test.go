package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// who asks n times over connections of its own, and says how often each server answered.
func who(t testing.TB, addr string, n int) map[string]int {
	t.Helper()
	count := map[string]int{}
	for range n {
		answer, err := ask(addr, "hello")
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(answer, " ")
		count[name]++
	}
	return count
}

func wantCount(t testing.TB, got map[string]int, want string) {
	t.Helper()
	if s := fmt.Sprint(got); s != "map["+want+"]" {
		t.Errorf("answers: %s, want %s", s, want)
	}
}

func TestServersInTurn(t *testing.T) {
	t.Parallel()
	a, b := backend(t, "a"), backend(t, "b")
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+a, "tcp://"+b)
	wantCount(t, who(t, p.Addr(""), 6), "a:3 b:3")
	p.WaitLog("-> tcp://" + a + ", tcp://" + b)
}

func TestServersByWeightAndBackup(t *testing.T) {
	t.Parallel()
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    to: {addr: [{addr: "tcp://%s", weight: 3}, "tcp://%s", {addr: "tcp://%s", backup: on}]}
`, backend(t, "a"), backend(t, "b"), backend(t, "c")))
	wantCount(t, who(t, p.Addr(""), 8), "a:6 b:2")
}

// A server that refuses is left out, and no client notices.
func TestServersRetry(t *testing.T) {
	t.Parallel()
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+boundPort(t), "tcp://"+backend(t, "b"))
	wantCount(t, who(t, p.Addr(""), 10), "b:10")
	if down := p.Logged("server down", 1); !strings.Contains(down.Text("err"), "refused") || fmt.Sprint(down["routes"]) != "[tcp-0]" {
		t.Errorf("it says %v", down)
	}
	for _, r := range p.Flows(10) {
		wantRecord(t, r, "ok", "")
	}
}

// By hash each client has one server, all servers have clients, and where one goes
// the clients of the others stay.
func TestServersByHash(t *testing.T) {
	t.Parallel()
	f := newFlapper(t, "c")
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+backend(t, "a"), "tcp://"+backend(t, "b"), "tcp://"+f.addr, "--to-balance", "hash")
	of := func() (where []string) {
		for i := range 60 { // so many that none of three is left out by chance
			where = append(where, askFrom(t, fmt.Sprintf("127.0.0.%d", 10+i), p.Addr("")))
		}
		return where
	}
	before := of()
	if again := of(); !slices.Equal(before, again) {
		t.Errorf("clients change their servers: %v, then %v", before, again)
	}
	for _, name := range []string{"a", "b", "c"} {
		if !slices.Contains(before, name) {
			t.Errorf("%s has no client of %d", name, len(before))
		}
	}
	f.down()
	for i, now := range of() {
		if now == "c" || before[i] != "c" && now != before[i] {
			t.Errorf("client %d was at %s and is at %s", i, before[i], now)
		}
	}
}

// askFrom asks from an address of the test's choice, and gives the name of who answers.
func askFrom(t testing.TB, ip, addr string) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: bound}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	fmt.Fprintln(c, "hello")
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(answer, " ")
	return name
}

// A server that has come back gets few connections at first, where slow_start is
// long, and its share once that is over; where there is none, at once. A start of
// an hour is at its sixteenth for minutes, however slow the test is.
func TestServersSlowStart(t *testing.T) {
	t.Parallel()
	f := newFlapper(t, "b")
	servers := fmt.Sprintf(`addr: ["tcp://%s", "tcp://%s"]`, backend(t, "a"), f.addr)
	p := runFile(t, fmt.Sprintf(`
listeners:
  - from: tcp://127.0.0.1:0
    name: hour
    to: {%[1]s, slow_start: 1h}
  - from: tcp://127.0.0.1:0
    name: second
    to: {%[1]s, slow_start: 1s}
  - from: tcp://127.0.0.1:0
    name: none
    to: {%[1]s}
`, servers))
	wantCount(t, who(t, p.Addr("hour"), 6), "a:3 b:3") // one that never was down is not slow
	f.down()
	wantCount(t, who(t, p.Addr("hour"), 6), "a:6")
	p.Logged("server down", 1)
	f.up(t)
	p.Logged("server up", 1)
	wantCount(t, who(t, p.Addr("none"), 6), "a:3 b:3")
	const turns = 4 // of sixteen to one
	if got := who(t, p.Addr("hour"), turns*17); got["b"] < turns-1 || got["b"] > turns+1 {
		t.Errorf("the one that is back has %d of %d, want about %d", got["b"], turns*17, turns)
	}
	eventually(t, "its whole share", func() bool { return who(t, p.Addr("second"), 8)["b"] == 4 })
}

func TestServersAllGone(t *testing.T) {
	t.Parallel()
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+boundPort(t), "tcp://"+boundPort(t))
	for range 8 {
		if _, err := ask(p.Addr(""), "hello"); err == nil {
			t.Fatal("an answer of nobody")
		}
	}
	for _, r := range p.Flows(8) {
		wantRecord(t, r, "no_server_up", "dial")
	}
}

func exampleServers(t *testing.T, e *example) {
	e.ca("internal-ca")
	e.leaf("site", []string{"site.example"})
	e.server("one.internal:8443", e.tlsBackend("one", e.serverConfig("one.internal")))
	e.server("two.internal:8443", boundPort(t))
	e.server("10.0.0.9:8443", e.tlsBackend("standby", e.serverConfig("standby.internal")))
	p := e.start()
	for range 4 {
		e.mustAskTLS(p.Addr(""), &tls.Config{ServerName: "site.example"}, "one")
	}
	if down := p.Logged("server down", 1); !strings.Contains(down.Text("server"), "two.internal") {
		t.Errorf("it says %v", down)
	}
}
