package main

import (
	"bufio"
	"cmp"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// sorted are the flows of one listener, in the order in which they came.
func sorted(records []testnet.Record, listener string) []testnet.Record {
	list := slices.DeleteFunc(slices.Clone(records), func(r testnet.Record) bool { return r.Text("listener") != listener })
	slices.SortFunc(list, func(a, b testnet.Record) int { return cmp.Compare(a.Num("id"), b.Num("id")) })
	return list
}

// A client's identity that rotates: from the agent's word on it is shown to servers,
// over TLS and DTLS; nothing that the old one was shown for is resumed, and what is
// open stays open.
func TestSPIFFERotationTowardsServers(t *testing.T) {
	t.Parallel()
	root, young := ca.Test(t), ca.Test(t)
	near, far := newAgent(t), newAgent(t)
	svid := func(by *ca.Tester, version string) *ca.Leaf {
		return by.Leaf([]string{"spiffe://corp/near", version + ".x.test"})
	}
	near.tell(t, svid(root, "v1"), []*ca.Tester{root}, nil)
	far.tell(t, root.Leaf([]string{"spiffe://corp/far"}), []*ca.Tester{root, young}, nil)
	stop := near.serve(t)
	far.serve(t)
	end := start(t, "run", "-c", write(t, "far.yaml", fmt.Sprintf(`
defaults: {spiffe: "%s", allow: [{uri: "spiffe://corp/near"}]}
listeners:
- {from: "tls://127.0.0.1:0", name: stream, to: "tcp://%s"}
- {from: "dtls://127.0.0.1:0", name: datagram, to: "udp://%s"}
`, far.addr, serveEach(t, echo), packetEcho(t))))
	end.WaitListeners(2)
	p := start(t, "run", "-c", write(t, "near.yaml", fmt.Sprintf(`
defaults: {to: {spiffe: "%s", name: "spiffe://corp/far"}}
listeners:
- {from: "tcp://127.0.0.1:0", name: stream, to: "tls://%s"}
- {from: "udp://127.0.0.1:0", name: datagram, to: "dtls://%s"}
`, near.addr, end.Addr("stream"), end.Addr("datagram"))))
	p.WaitListeners(2)
	p.Logged("SPIFFE identity", 2) // asked for at the start, then followed
	rounds := func() {
		t.Helper()
		for range 2 {
			mustAsk(t, p.Addr("stream"), "hello", "hello")
			mustEcho(t, dialUDP(t, p.Addr("datagram")), []byte("hello"))
		}
	}
	open := dial(t, p.Addr("stream"))
	open.SetDeadline(time.Now().Add(2 * testnet.Patience))
	lines := bufio.NewReader(open)
	still := func() {
		t.Helper()
		mustLine(t, open, lines)
	}
	still()
	rounds()
	near.tell(t, svid(root, "v2"), []*ca.Tester{root}, nil)
	p.Logged("SPIFFE identity", 3)
	rounds()
	still()
	near.tell(t, svid(young, "v3"), []*ca.Tester{root}, nil) // of another CA
	p.Logged("SPIFFE identity", 4)
	stop()
	p.WaitLog("no word from the SPIFFE agent; what it said last holds")
	rounds()
	still()
	open.Close()
	// Who is told to end at once does not wait for what the client has said last.
	for _, side := range []*testnet.Program{p, end} {
		side.Flow("the open one", func(r testnet.Record) bool { return r.Num("id") == 1 })
	}
	endAtOnce(p)
	p.Wait()
	endAtOnce(end)
	end.Wait()

	records := end.Flows(13)
	for listener, first := range map[string]int{"stream": 1, "datagram": 0} { // the open one came first of all
		flows := sorted(records, listener)
		if len(flows) != 6+first {
			t.Fatalf("%s: %d flows", listener, len(flows))
		}
		for i, r := range flows[first:] {
			version := []string{"v1", "v2", "v3"}[i/2]
			resumed := listener == "stream" && i != 2 && i != 4 // DTLS has no tickets; v1's session is that of the open flow
			wantFields(t, r, testnet.Record{"in_peer": version + ".x.test,spiffe://corp/near", "in_resumed": resumed})
		}
	}
	for _, r := range append(records, p.Flows(13)...) {
		if reason := r.Text("reason"); reason != "ok" && reason != "drained" {
			t.Errorf("a flow was lost: %v", r)
		}
	}
}

// mustLine wants a line back on a connection that stays open.
func mustLine(t testing.TB, c net.Conn, lines *bufio.Reader) {
	t.Helper()
	if _, err := c.Write([]byte("still there?\n")); err != nil {
		t.Fatal(err)
	}
	if got, err := lines.ReadString('\n'); err != nil || got != "still there?\n" {
		t.Fatalf("%q, %v", got, err)
	}
}
