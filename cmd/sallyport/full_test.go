package main

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/admin"
	"sallyport/internal/testnet"
)

// withFiles gives the program that many file descriptors.
func withFiles(n int) func(*exec.Cmd) {
	return func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Args = append([]string{"sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$@"`, n), "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path, cmd.Err = exec.LookPath("sh")
	}
}

// Where the process has as many flows as it may, further clients wait, and it is told
// which limit that is and where it comes from: by the log, the metric and status.
func TestLimitOfTheProcessIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, file  string
		files       int
		most        int
		from, raise string
		few         bool // said at start
	}{
		{"by descriptors", "", 40, 4, "RLIMIT_NOFILE, which is 40", "LimitNOFILE=", true},
		{"by the file", "limits: {flows: 3}", 400, 3, "limits.flows of the file", "limits.flows", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := write(t, "s.yaml", fmt.Sprintf("%s\nmetrics: unix:%s/m\nadmin: unix:%s/a\nlisteners: [{from: \"tcp://127.0.0.1:0\", name: l, to: \"tcp://%s\"}]\n", c.file, dir, dir, echoAddr(t)))
			p := testnet.StartIn(t, withFiles(c.files), "run", "-c", file)
			in := make([]net.Conn, c.most)
			for i := range in {
				if in[i] = dial(t, p.Addr("")); !gotIn(in[i]) {
					t.Fatalf("%d of %d are let in", i, c.most)
				}
			}
			if strings.Contains(p.Stderr(), "process_flows") {
				t.Error("it is told before it is met")
			}
			waits := dial(t, p.Addr(""))
			r := p.Logged("connections wait: a limit was reached", 1)
			if r.Text("listener") != "l" || r.Text("limit") != "process_flows" || r["n"] != 1.0 || r["most"] != float64(c.most) || r.Text("from") != c.from || !strings.Contains(r.Text("hint"), c.raise) {
				t.Errorf("%v", r)
			}
			if _, page := curl(t, "--unix-socket", dir+"/m", "http://x/metrics"); metric(t, page, `sallyport_limit_hits_total{limit="process_flows",listener="l"}`) != 1 {
				t.Errorf("no metric says so:\n%s", page)
			}
			if st := asked[admin.Status](t, dir+"/a", "status"); st.Most != c.most || st.MostFrom != c.from {
				t.Errorf("%+v", st)
			}
			if out, err := commanded(t, dir+"/a", "status"); err != nil || !strings.Contains(out, fmt.Sprintf("%d at once, by %s", c.most, c.from)) {
				t.Errorf("%v: %s", err, out)
			}
			if few := strings.Contains(p.Stderr(), "allow few connections"); few != c.few {
				t.Errorf("said at start: %t", few)
			}
			in[0].Close()
			if !gotIn(waits) {
				t.Error("who waits is not let in")
			}
		})
	}
}

// While every flow that the file descriptors allow is alive, the program still
// hears that it is to end: the flows have timeouts.drain, and a second signal
// ends them at once.
func TestEndWhileFull(t *testing.T) {
	few := withFiles(80)
	for _, c := range []struct {
		name    string
		drain   string
		signals int
		why     string
	}{
		{"drained", "200ms", 1, "when timeouts.drain had passed"},
		{"ended at once", "1h", 2, "a further signal (terminated) ended it"},
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
				if !strings.Contains(r.Text("err"), c.why) {
					t.Errorf("the record says %q", r.Text("err"))
				}
			}
		})
	}
}
