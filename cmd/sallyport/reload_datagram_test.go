package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// A listener that was removed can come back while an association of it lives, which
// goes on all the while; another kind cannot have the address so long, and is told why.
func TestReloadBringsDatagramsBack(t *testing.T) {
	for carrier, more := range map[string]string{"udp": "", "dtls": "psk"} {
		t.Run(carrier, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			first, second := packetEcho(t), packetEcho(t)
			psk := writePSK(t, dir, "devices.psk")
			if more != "" {
				more = fmt.Sprintf("psk: %q, ", psk)
			}
			at := freeAddr(t)
			without := fmt.Sprintf(`log: {format: json}
listeners:
  - {from: udp://127.0.0.1:0, name: stays, to: udp://%[1]s}
  - {from: dtls://127.0.0.1:0, name: keys, psk: %[2]q, to: udp://%[1]s} # so that the sandbox has it
`, first, psk)
			with := func(echo string) string {
				return without + fmt.Sprintf("  - {from: %s://%s, name: moves, %sto: udp://%s}\n", carrier, at, more, echo)
			}
			r := startReloader(t, with(first))
			ends := []*testnet.Program{r.Program}
			near := func(to []string) *net.UDPConn {
				p := start(t, to...)
				ends = append(ends, p)
				return dialUDP(t, p.Addr(""))
			}
			to := []string{"proxy", "udp://127.0.0.1:0", carrier + "://" + at}
			if more != "" {
				to = append(to, "--to-psk", psk, "--to-psk-identity", "dev1")
			}
			c := near(to)
			mustEcho(t, c, []byte("before"))
			for range 2 {
				if said := r.mustReload(t, without); said.Text("removed") != "moves" {
					t.Fatalf("it says %v", said)
				}
				mustEcho(t, c, []byte("without"))
				other := map[string]string{"udp": fmt.Sprintf("{from: dtls://%s, name: other, psk: %q, to: udp://%s}", at, psk, first), "dtls": fmt.Sprintf("{from: udp://%s, name: other, to: udp://%s}", at, first)}
				r.write(t, without+"  - "+other[carrier]+"\n")
				r.mustKeep(t, "removed by an earlier reload", "until its last association ends")
				if said := r.mustReload(t, with(second)); said.Text("added") != "moves" {
					t.Fatalf("it says %v", said)
				}
				mustEcho(t, c, []byte("again"))
				mustEcho(t, near(to), []byte("a new one"))
			}
			for _, p := range ends {
				p.Signal(syscall.SIGKILL) // their associations would have each wait for another
			}
		})
	}
}

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
