package main

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
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
	if down := p.Logged("server down", 1); !strings.Contains(down.Text("err"), "refused") {
		t.Errorf("it says %v", down)
	}
	for _, r := range p.Flows(10) {
		wantRecord(t, r, "ok", "")
	}
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
