package main

import (
	"crypto/tls"
	"fmt"
	"testing"
)

// A server has sent its answer and finished, and the client is slower to take it
// than timeouts.linger: it still gets all of it, and the proper end.
func TestLingerEndsNoDownload(t *testing.T) {
	s := newSite(t)
	for _, in := range []bool{false, true} {
		t.Run(fmt.Sprintf("client speaks TLS %t", in), func(t *testing.T) {
			t.Parallel()
			w := startWay(t, s, in, false, "--timeouts-linger", "500ms")
			client, server := w.pair(t, tls.VersionTLS13)
			swap(t, client, server, []byte("ping"))
			answer := bytesOf(8, 256<<10) // more than the client's window, less than what the kernel takes from us
			server.Write(answer)
			server.finish()
			if _, how := server.rest(); how != wasReset {
				t.Errorf("the server saw %s", how)
			}
			wantRecord(t, w.record(client), "linger_timeout", "relay")
			client.wantRest(t, "client", answer, finished)
		})
	}
}
