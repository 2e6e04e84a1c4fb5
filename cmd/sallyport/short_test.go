package main

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// A system that is short of buffers loses datagrams, and ends no association: every
// third answer finds none.
func TestDatagramsWithoutBuffers(t *testing.T) {
	t.Parallel()
	p := testnet.StartIn(t, func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=sendmsg", "-e", "inject=sendmsg:error=ENOBUFS:when=2+3", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = tool(t, "strace")
	}, "proxy", "udp://127.0.0.1:0", "udp://"+packetEcho(t))
	c := dialUDP(t, p.Addr(""))
	got := 0
	for n := range 30 {
		c.Write(fmt.Append(nil, n))
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := c.Read(make([]byte, 100)); err == nil {
			got++
		}
	}
	endAtOnce(p)
	r := p.Flows(1)
	if len(r) != 1 || r[0].Text("reason") != "drained" || got == 0 || got == 30 {
		t.Errorf("%d of 30 came back; %v", got, r)
	}
	if r := p.Logged("datagrams dropped", 1); r.Num("unsent") < 1 {
		t.Errorf("%v", r)
	}
}
