package main

import (
	"crypto/tls"
	"fmt"
	"testing"
)

// A server that has sent all that it has and then ends without close_notify, as
// many do, ends the flow as a truncation. A slow client still gets every byte
// before it hears of that; a reset at once would take what was on its way.
func TestTruncationComesAfterTheBytes(t *testing.T) {
	s := newSite(t)
	for _, in := range []bool{false, true} {
		t.Run(fmt.Sprintf("client speaks TLS %t", in), func(t *testing.T) {
			w := startWay(t, s, in, true)
			client, server := w.pair(t, tls.VersionTLS13)
			swap(t, client, server, []byte("ping"))
			tail := bytesOf(7, 256<<10) // more than the client's window, less than what the kernel takes from us
			server.Write(tail)
			server.fin()
			if _, how := server.rest(); how != wasReset {
				t.Fatalf("the server saw %s", how)
			}
			// Only now, when the program has judged the server's end, does the client read.
			client.wantRest(t, "client", tail, wasReset)
			wantRecord(t, w.record(client), "server_truncated", "relay")
		})
	}
}
