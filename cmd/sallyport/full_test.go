package main

import (
	"io"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// While every flow that the file descriptors allow is alive, the program still
// hears that it is to end: the flows have timeouts.drain, and a second signal
// ends them at once.
func TestEndWhileFull(t *testing.T) {
	few := func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Args = append([]string{"sh", "-c", `ulimit -n 80 && exec "$@"`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path, cmd.Err = exec.LookPath("sh")
	}
	for _, c := range []struct {
		name    string
		drain   string
		signals int
	}{
		{"drained", "200ms", 1},
		{"ended at once", "1h", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &way{site: newSite(t)}
			w.Program = testnet.StartIn(t, few, w.args(serving(t, echo), "--timeouts-drain", c.drain)...)
			var waits bool
			for !waits {
				client := w.dial(t, 0)
				io.WriteString(client, "x")
				client.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
				_, err := client.Read(make([]byte, 1))
				waits = err != nil
			}
			began := time.Now()
			for i := range c.signals {
				if w.Signal(syscall.SIGTERM); i == 0 {
					w.WaitLog("ending")
				}
			}
			if code := w.Wait(); code != 0 {
				t.Errorf("the exit code is %d", code)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v to end", took)
			}
			for _, r := range w.Flows(1) {
				wantRecord(t, r, "drained", "relay")
			}
		})
	}
}
