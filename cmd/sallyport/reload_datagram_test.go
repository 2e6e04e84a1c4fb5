package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// An association goes on over a reload, and who is no longer listed does not get in
// again.
func TestReloadOfDatagrams(t *testing.T) {
	dir := t.TempDir()
	echo := packetEcho(t)
	psk, mine := writePSK(t, dir, "devices.psk"), writePSK(t, dir, "mine.psk")
	text := fmt.Sprintf(`
log: {format: json}
listeners:
  - from: dtls://127.0.0.1:0
    name: there
    psk: %q
    timeouts: {handshake: 1s}
    to: udp://%s
`, psk, echo)
	r := startReloader(t, text)
	to := []string{"proxy", "udp://127.0.0.1:0", "dtls://" + r.Addr("there"), "--to-psk", mine, "--to-psk-identity", "dev1", "--to-tls-cid", "off"}
	near := start(t, to...)
	c := dialUDP(t, near.Addr(""))
	mustEcho(t, c, []byte("before"))

	if err := os.WriteFile(psk, []byte("other:00112233445566778899aabbccddeeff\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.mustReload(t, text)
	mustEcho(t, c, []byte("after"))
	again := dialUDP(t, near.Addr("")) // which has the session of the first to resume
	again.Write([]byte("let me in"))
	r.Reason("psk_unknown")
	again.SetReadDeadline(time.Now().Add(time.Second))
	if n, err := again.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes came back to one who is not listed", n)
	}
}
