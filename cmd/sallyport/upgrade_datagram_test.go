package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// datagramPumps send numbered datagrams, and count those that come back.
type datagramPumps struct {
	rounds []atomic.Int64
	ending atomic.Bool
	all    sync.WaitGroup
}

// pumpDatagrams wants every datagram back: on loopback none is lost but by us.
func pumpDatagrams(t *testing.T, to ...net.Conn) *datagramPumps {
	p := &datagramPumps{rounds: make([]atomic.Int64, len(to))}
	for i, c := range to {
		p.all.Go(func() {
			for n := uint64(1); !p.ending.Load(); n++ {
				sent, got := binary.BigEndian.AppendUint64(nil, n), make([]byte, 100)
				if _, err := c.Write(sent); err != nil {
					t.Errorf("pump %d: %v", i, err)
					return
				}
				c.SetReadDeadline(time.Now().Add(testnet.Patience))
				if m, err := c.Read(got); err != nil || string(got[:m]) != string(sent) {
					t.Errorf("pump %d: of datagram %d came %x, %v", i, n, got[:m], err)
					return
				}
				p.rounds[i].Add(1)
				time.Sleep(pace)
			}
		})
	}
	t.Cleanup(p.end)
	return p
}

func (p *datagramPumps) end() { p.ending.Store(true); p.all.Wait() }

// goOn waits until each has made some more rounds.
func (p *datagramPumps) goOn(t *testing.T) {
	t.Helper()
	for i := range p.rounds {
		was := p.rounds[i].Load()
		eventually(t, fmt.Sprintf("pump %d goes on", i), func() bool { return p.rounds[i].Load() > was+5 || t.Failed() })
	}
}

// Associations of datagrams go on in the process that has their keys, by the sockets
// that another process has taken over, where new ones begin. None of their datagrams
// is lost. What is passed on undecrypted goes on too.
func TestUpgradeKeepsAssociations(t *testing.T) {
	dir, runtime := t.TempDir(), t.TempDir()
	in := func(cmd *exec.Cmd) { promptly(cmd); cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+runtime) }
	r := &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	psk := writePSK(t, dir, "devices.psk")
	behind := start(t, "proxy", "dtls://127.0.0.1:0", "udp://"+packetEcho(t), "--psk", psk)
	r.write(t, fmt.Sprintf(`log: {format: json}
defaults: {timeouts: {drain: 1m}}
listeners:
  - {from: udp://127.0.0.1:0, name: plain, to: udp://%[1]s}
  - {from: dtls://127.0.0.1:0, name: named, psk: %[2]q, to: udp://%[1]s}
  - {from: dtls://127.0.0.1:0, name: passed, action: splice, to: udp://%[3]s}
  - {from: udp://127.0.0.1:0, name: goes, to: udp://%[1]s}
`, packetEcho(t), psk, behind.Addr("")))
	r.Program = testnet.StartIn(t, in, "run", "-c", r.file)
	r.WaitListeners(4)

	var ends []*testnet.Program
	client := func(listener string, more ...string) net.Conn {
		p := start(t, append([]string{"proxy", "udp://127.0.0.1:0", "dtls://" + r.Addr(listener), "--to-psk", psk, "--to-psk-identity", "dev1"}, more...)...)
		ends = append(ends, p)
		return dialUDP(t, p.Addr(""))
	}
	var conns []net.Conn
	for range 3 {
		conns = append(conns, dialUDP(t, r.Addr("plain")))
	}
	conns = append(conns, client("named"), client("named", "--to-tls-cid", "off"), client("passed"), client("passed", "--to-tls-cid", "off"), dialUDP(t, r.Addr("goes")))
	long := pumpDatagrams(t, conns...)
	long.goOn(t)

	// The new process has no listener of that name: the old one reads it to the end.
	r.write(t, fmt.Sprintf(`log: {format: json}
defaults: {timeouts: {drain: 1m}}
listeners:
  - {from: udp://127.0.0.1:0, name: plain, to: udp://%[1]s}
  - {from: dtls://127.0.0.1:0, name: named, psk: %[2]q, to: udp://%[1]s}
  - {from: dtls://127.0.0.1:0, name: passed, action: splice, to: udp://%[3]s}
`, packetEcho(t), psk, behind.Addr("")))
	now := testnet.StartIn(t, in, "upgrade", "-c", r.file)
	r.WaitLog("another process has taken over")
	long.goOn(t)
	for _, name := range []string{"plain", "named", "passed"} {
		if now.Addr(name) != r.Addr(name) {
			t.Errorf("%s listens on %s, not on %s", name, now.Addr(name), r.Addr(name))
		}
	}
	fresh := pumpDatagrams(t, dialUDP(t, now.Addr("plain")), client("named"), client("passed"))
	fresh.goOn(t)
	long.goOn(t)
	fresh.end()

	// The other one gone, the old one's associations end with it.
	long.end()
	now.Signal(syscall.SIGKILL)
	for _, f := range r.Flows(7) {
		if f.Text("listener") == "goes" || f.Text("reason") != "drained" {
			t.Errorf("an association of %s ended with %s", f.Text("listener"), f.Text("reason"))
		}
	}
	r.Signal(syscall.SIGTERM)
	if code := r.Wait(); code != 0 {
		t.Errorf("the old one's exit code is %d", code)
	}
	for _, p := range ends {
		p.Signal(syscall.SIGKILL) // nothing tells them that a server is gone
	}
	behind.Signal(syscall.SIGKILL)
}
