package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// curl gives what it says of an answer: its code, and what else form asks for, then
// the body.
func curl(t testing.TB, args ...string) (code int, body string) {
	t.Helper()
	out, err := execute(t, "", "curl", append([]string{"-sS", "--max-time", "10", "-w", "\n%{http_code}"}, args...)...)
	i := strings.LastIndexByte(out, '\n')
	code, _ = strconv.Atoi(out[i+1:])
	if err != nil && code == 0 {
		return 0, out
	}
	return code, out[:i]
}

// paneAddr is where the program has bound the pane of that key.
func paneAddr(p *testnet.Program, key string) string {
	return p.Logged(key+" answers", 1).Text("addr")
}

// good is one connection through the program, with a line there and back.
func (w *way) good(t testing.TB) {
	t.Helper()
	if err := w.visit(tls.VersionTLS13); err != nil {
		t.Errorf("the proxy does not serve any more: %v", err)
	}
}

func metric(t testing.TB, page, name string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (.*)$`).FindStringSubmatch(page)
	if m == nil {
		return -1
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// What has passed is in the metrics, which curl gets over TCP and over a unix socket,
// as it is while a connection is still open.
func TestMetricsOfTheProgram(t *testing.T) {
	t.Parallel()
	sock := filepath.Join(t.TempDir(), "m.sock")
	for _, c := range []struct{ flag, host string }{{"tcp://127.0.0.1:0", ""}, {"unix:" + sock, sock}} {
		w := &way{site: newSite(t), in: true}
		w.Program = start(t, w.args(serving(t, echo), "--metrics", c.flag)...)
		at := []string{"--unix-socket", c.host}
		url := "http://x"
		if addr := paneAddr(w.Program, "metrics"); c.host == "" {
			at, url = nil, "http://"+addr
		}
		w.good(t)
		w.Reason("ok")
		open := w.dial(t, tls.VersionTLS13)
		if err := open.handshake(); err != nil {
			t.Fatal(err)
		}
		io.WriteString(open, "12345")
		io.ReadFull(open, make([]byte, 5))

		code, page := curl(t, append(at, url+"/metrics")...)
		for name, want := range map[string]float64{
			`sallyport_flows_total{listener="tls-0",reason="ok",route="tls-0"}`:                           1,
			`sallyport_flows_open{listener="tls-0"}`:                                                      1,
			`sallyport_bytes_total{direction="up",listener="tls-0",route="tls-0"}`:                        15 + 5,
			`sallyport_handshakes_total{group="X25519",resumed="false",side="inbound",version="TLS 1.3"}`: 1,
			`sallyport_stage_seconds_count{stage="inbound"}`:                                              1,
			`sallyport_log_lines_lost_total`:                                                              0,
			fmt.Sprintf(`sallyport_certificate_expiry_timestamp_seconds{file=%q,name="a.test"}`, w.cert):  float64(w.leaf.Cert.NotAfter.Unix()),
		} {
			if got := metric(t, page, name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		for _, name := range []string{"process_open_fds", "process_resident_memory_bytes", "go_goroutines"} {
			if metric(t, page, name) <= 0 {
				t.Errorf("no %s", name)
			}
		}
		if code != 200 || t.Failed() {
			t.Errorf("%d\n%s", code, page)
		}
		for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
			if code, body := curl(t, append(at, url+path)...); code != 200 || body != want {
				t.Errorf("%s: %d %q", path, code, body)
			}
		}
		// While it ends, it is alive and takes nobody new.
		w.Signal(syscall.SIGTERM)
		w.WaitLog("ending")
		if code, body := curl(t, append(at, url+"/readyz")...); code != 503 {
			t.Errorf("/readyz while ending: %d %q", code, body)
		}
		if code, _ := curl(t, append(at, url+"/healthz")...); code != 200 {
			t.Errorf("/healthz while ending: %d", code)
		}
		open.close()
		if code := w.Wait(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if _, err := os.Stat(sock); c.host != "" && err == nil {
			t.Error("the socket is still there")
		}
	}
}

// A reload binds metrics where they are now, and leaves all as it is where that is
// not possible.
func TestReloadMovesMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "s.yaml")
	put := func(metrics string) {
		text := "metrics: " + metrics + "\nlisteners:\n  - {from: \"tcp://127.0.0.1:0\", to: \"tcp://" + serving(t, echo) + "\"}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("unix:a.sock")
	p := start(t, "run", "-c", file, "--log-level", "debug")
	ready := func(sock string) int {
		code, _ := curl(t, "--unix-socket", filepath.Join(dir, sock), "http://x/readyz")
		return code
	}
	if code := ready("a.sock"); code != 200 {
		t.Errorf("at first: %d", code)
	}
	put("unix:none/b.sock")
	p.Signal(syscall.SIGHUP)
	p.WaitLog("not reloaded")
	if code := ready("a.sock"); code != 200 {
		t.Errorf("after a reload that failed: %d", code)
	}
	put("unix:b.sock")
	p.Signal(syscall.SIGHUP)
	p.Logged("metrics answers", 2)
	p.WaitLog("reloaded")
	if code := ready("b.sock"); code != 200 {
		t.Errorf("where they have moved: %d", code)
	}
	_, page := curl(t, "--unix-socket", filepath.Join(dir, "b.sock"), "http://x/metrics")
	if good, failed := metric(t, page, `sallyport_reloads_total{result="good"}`), metric(t, page, `sallyport_reloads_total{result="failed"}`); good < 1 || failed < 1 {
		t.Errorf("%v reloads were good and %v failed", good, failed)
	}
}

// F-36: whoever attacks the metrics learns nothing, and the proxy serves all the
// while. P-07: there is nothing else to be reached.
func TestFaultMetricsUnderAttack(t *testing.T) {
	t.Parallel()
	w := &way{site: newSite(t), in: true}
	w.Program = start(t, w.args(serving(t, echo), "--metrics", "tcp://127.0.0.1:0")...)
	addr := paneAddr(w.Program, "metrics")
	url := "http://" + addr
	for _, c := range []struct {
		path string
		args []string
		want int
	}{
		{"/", nil, 404}, {"/metrics/", nil, 404}, {"/debug/pprof/", nil, 404}, {"/debug/vars", nil, 404}, {"/flows", nil, 404}, {"/reload", []string{"-X", "POST"}, 404},
		{"/../../etc/passwd", []string{"--path-as-is"}, 404}, {"/%2e%2e/%2e%2e/etc/passwd", []string{"--path-as-is"}, 404},
		{"/metrics/../../etc/passwd", []string{"--path-as-is"}, 404}, {"//metrics", []string{"--path-as-is"}, 404},
		{"/metrics", []string{"-X", "POST", "-d", "x"}, 405}, {"/metrics", []string{"-X", "DELETE"}, 405}, {"/metrics", []string{"-X", "OPTIONS"}, 405},
		{"/metrics", []string{"-X", "TRACE"}, 405}, {"/metrics", []string{"-X", "CONNECT"}, 405}, {"/metrics", []string{"-X", "PROPFIND"}, 405},
		{"/metrics", []string{"-H", "X: " + strings.Repeat("x", 100<<10)}, 431}, {"/metrics", []string{"-I"}, 200},
		{"/metrics?x=" + strings.Repeat("y", 1000), nil, 200},
	} {
		code, body := curl(t, append(c.args, "-i", url+c.path)...)
		if code != c.want {
			t.Errorf("%.60s %.60q: %d, want %d", c.path, c.args, code, c.want)
		}
		if low := strings.ToLower(body); strings.Contains(low, "access-control-allow") || strings.Contains(body, "root:") || strings.Contains(body, "BEGIN") {
			t.Errorf("%s says %q", c.path, body)
		}
	}
	w.good(t)
}

// startWithPanes is the program with both of its panes over TCP, where strangers reach them.
func startWithPanes(t *testing.T) (w *way, urls map[string]string) {
	w = &way{site: newSite(t), in: true}
	w.Program = start(t, w.args(serving(t, echo), "--metrics", "tcp://127.0.0.1:0", "--admin", "tcp://127.0.0.1:0", "--unsafe-admin-tcp")...)
	return w, map[string]string{
		"metrics": "http://" + paneAddr(w.Program, "metrics") + "/metrics",
		"admin":   "http://" + paneAddr(w.Program, "admin") + "/status",
	}
}

// F-36: a million headers, and slow clients of which there are more than places: they
// are put out, and all connections through the proxy are served meanwhile.
func TestFaultPanesUnderAttack(t *testing.T) {
	t.Parallel()
	w, urls := startWithPanes(t)
	for pane, url := range urls {
		t.Run(pane, func(t *testing.T) {
			good := startProber(t, w.Addr(""), w.clientConfig(tls.VersionTLS13))
			addr, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
			c := dial(t, addr)
			fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\n", path, addr)
			many := bytes.Repeat([]byte("a: b\r\n"), 10_000)
			for range 100 {
				if _, err := c.Write(many); err != nil {
					break
				}
			}
			c.SetReadDeadline(time.Now().Add(testnet.Patience))
			if answer, _ := io.ReadAll(c); len(answer) > 0 && !bytes.Contains(answer, []byte(" 431 ")) {
				t.Errorf("a million headers: %.100q", answer)
			}
			var slow []net.Conn
			for range 200 {
				c := dial(t, addr)
				fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: ", path)
				slow = append(slow, c)
			}
			began := time.Now()
			for _, c := range slow {
				c.SetReadDeadline(time.Now().Add(2 * testnet.Patience))
				io.Copy(io.Discard, c)
			}
			if took := time.Since(began); took > testnet.Patience {
				t.Errorf("slow clients kept their places for %v", took)
			}
			if code, _ := curl(t, url); code != 200 {
				t.Errorf("after the slow ones: %d", code)
			}
			good.wantAll(t)
		})
	}
}

// slowhttptest is what attacks such servers: slow headers, slow bodies, slow reads.
func TestFaultPanesUnderSlowHTTPTest(t *testing.T) {
	t.Parallel()
	w, urls := startWithPanes(t)
	good := startProber(t, w.Addr(""), w.clientConfig(tls.VersionTLS13))
	var attacks sync.WaitGroup
	for pane, url := range urls {
		for _, mode := range []string{"-H", "-B", "-X"} {
			attacks.Go(func() {
				cmd := exec.Command("slowhttptest", mode, "-c", "100", "-r", "100", "-i", "1", "-l", "3", "-u", url)
				if out, err := cmd.CombinedOutput(); len(out) == 0 {
					t.Errorf("slowhttptest %s on %s: %v", mode, pane, err)
				}
			})
		}
	}
	attacks.Wait()
	for pane, url := range urls {
		if code, _ := curl(t, url); code != 200 {
			t.Errorf("%s after that: %d", pane, code)
		}
	}
	good.wantAll(t)
}

// F-19: a disk that is full costs lines of the log and nothing else, and they are
// counted.
func TestFaultLogDiskFull(t *testing.T) {
	t.Parallel()
	w := &way{site: newSite(t), in: true}
	full := func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Args = append([]string{"sh", "-c", `exec "$@" 2>/dev/full`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path = tool(t, "sh")
	}
	sock := filepath.Join(t.TempDir(), "m.sock")
	w.Program = testnet.Launch(t, full, w.args(serving(t, echo), "--metrics", "unix:"+sock, "--log-format", "json")...)
	w.WaitListeners(1)
	for range 20 {
		w.good(t)
	}
	_, page := curl(t, "--unix-socket", sock, "http://x/metrics")
	if n := metric(t, page, "sallyport_log_lines_lost_total"); n < 20 {
		t.Errorf("%v lines lost", n)
	}
}

// Clients of the metrics that ask nothing keep nobody else from an answer, also where they
// come from where the others do; the log and the metric tell of them.
func TestMetricsAreNotStarved(t *testing.T) {
	t.Parallel()
	p := start(t, "proxy", "tcp://127.0.0.1:0", "tcp://"+echoAddr(t), "--metrics", "tcp://127.0.0.1:0")
	addr := paneAddr(p, "metrics")
	for range 100 {
		dial(t, addr)
	}
	for _, page := range []string{"healthz", "readyz"} {
		if code, body := curl(t, "http://"+addr+"/"+page); code != 200 {
			t.Errorf("%s: %d %s", page, code, body)
		}
	}
	if _, page := curl(t, "http://"+addr+"/metrics"); metric(t, page, `sallyport_limit_hits_total{limit="connections",listener="metrics"}`) < 36 {
		t.Errorf("no metric says so:\n%s", page)
	}
	r := p.Logged("connections refused: a limit was reached", 1)
	if r.Text("listener") != "metrics" || r.Text("limit") != "connections" {
		t.Errorf("%v", r)
	}
}

// F-20: whoever reads the log and has stopped holds up no connection.
func TestFaultLogReaderStuck(t *testing.T) {
	t.Parallel()
	w := &way{site: newSite(t), in: true}
	r, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sock := filepath.Join(t.TempDir(), "m.sock")
	args := w.args(serving(t, echo), "--metrics", "unix:"+sock, "--log-format", "json", "--log-level", "debug")
	stuck := func(cmd *exec.Cmd) {
		promptly(cmd)
		cmd.Args = append([]string{"sh", "-c", `exec "$@" 2>&3`, "sh", cmd.Path}, cmd.Args[1:]...)
		cmd.Path, cmd.ExtraFiles = tool(t, "sh"), []*os.File{stderr}
	}
	w.Program = testnet.Launch(t, stuck, args...)
	stderr.Close()
	w.WaitListeners(1)
	// More records than the pipe and the queue hold together.
	fill := "GET /x HTTP/1.1\r\n\r\n"
	var page string
	for lost := 0.0; lost <= 0; {
		for range 200 {
			c := dial(t, w.Addr(""))
			io.WriteString(c, fill)
			c.Close()
		}
		w.good(t)
		_, page = curl(t, "--unix-socket", sock, "http://x/metrics")
		lost = metric(t, page, "sallyport_log_lines_lost_total")
		if t.Failed() {
			return
		}
	}
	for range 20 {
		w.good(t)
	}
	began := time.Now()
	w.Signal(syscall.SIGTERM)
	if code := w.Wait(); code != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("exit code %d after %v", code, time.Since(began))
	}
}
