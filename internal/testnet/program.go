package testnet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a test waits for what must come at once.
const Patience = 40 * time.Second

var (
	folder = sync.OnceValue(func() error { return os.Mkdir(binaryDir(), 0o700) })
	binary = sync.OnceValues(func() (string, error) { return built("sallyport", "-race") })
	forUse = sync.OnceValues(func() (string, error) { return built("forUse") })
)

// built is the program, made with those flags.
func built(name string, flags ...string) (string, error) {
	if bin := os.Getenv("SALLYPORT_TEST_BIN"); bin != "" {
		return bin, nil
	}
	if err := folder(); err != nil {
		return "", err
	}
	bin := filepath.Join(binaryDir(), name)
	out, err := exec.Command("go", slices.Concat([]string{"build", "-o", bin}, flags, []string{"sallyport/cmd/sallyport"})...).CombinedOutput()
	if err != nil {
		return "", &buildError{string(out), err}
	}
	return bin, nil
}

type buildError struct {
	out string
	err error
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + e.out }

// Binary is the program, built once a test binary with the race detector.
func Binary(t testing.TB) string {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// ForUse has the program run as it is built for use, where memory and CPU are
// measured: what the race detector keeps is many times what the program does.
func ForUse(t testing.TB) func(*exec.Cmd) {
	t.Helper()
	bin, err := forUse()
	if err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) { cmd.Path = bin }
}

// RemoveBinary removes what Binary and ForUse have built, for a TestMain.
func RemoveBinary() { os.RemoveAll(binaryDir()) }

func binaryDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("sallyport-test-%d", os.Getpid()))
}

// Program is the running program.
type Program struct {
	t      testing.TB
	cmd    *exec.Cmd
	done   chan struct{}
	err    error
	mu     sync.Mutex
	news   chan struct{} // closed and renewed with each line
	addrs  map[string]string
	order  []string
	stderr bytes.Buffer
	lines  []Record
}

// Record is one line of the JSON log.
type Record map[string]any

// Text is the string at key, or "".
func (r Record) Text(key string) string { s, _ := r[key].(string); return s }

// Num is the number at key, or 0.
func (r Record) Num(key string) float64 { n, _ := r[key].(float64); return n }

// Start runs sallyport with args and a JSON log, waits until it listens, and
// stops it at the test's end. The test fails where the race detector spoke.
func Start(t testing.TB, args ...string) *Program { return StartIn(t, nil, args...) }

// StartIn is Start with a hook to change the command, such as its environment.
func StartIn(t testing.TB, change func(*exec.Cmd), args ...string) *Program {
	t.Helper()
	p := Launch(t, change, append(args, "--log-format", "json")...)
	p.until("the program to listen", func() bool { return len(p.order) > 0 && p.said("-> ") || p.exited() })
	if p.exited() {
		t.Fatalf("sallyport %s ended at once:\n%s", strings.Join(args, " "), p.Stderr())
	}
	return p
}

// Launch runs sallyport and waits for nothing.
func Launch(t testing.TB, change func(*exec.Cmd), args ...string) *Program {
	t.Helper()
	p := &Program{t: t, done: make(chan struct{}), news: make(chan struct{}), addrs: map[string]string{}}
	p.cmd = exec.Command(Binary(t), args...)
	// The detector would have each program sleep for a second at its end.
	p.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=0 exitcode=66 atexit_sleep_ms=0")
	if change != nil {
		change(p.cmd)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.read(stdout, p.listening) })
	readers.Go(func() { p.read(stderr, p.logged) })
	go func() {
		readers.Wait()
		p.err = p.cmd.Wait()
		close(p.done)
		p.wake()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(2 * time.Second):
			p.cmd.Process.Kill()
			<-p.done
		}
		if out := p.Stderr(); strings.Contains(out, "DATA RACE") || strings.Contains(out, `"reason":"panic"`) || strings.Contains(out, "\npanic: ") {
			t.Errorf("the program raced or panicked:\n%s", faults(out))
		} else if t.Failed() {
			t.Logf("the program's log:\n%s", ends(out))
		}
		for _, line := range keyLines(args) {
			if strings.Contains(p.Stderr(), line) {
				t.Errorf("the program's log has a line of a private key: %.12s...", line)
			}
		}
	})
	return p
}

// faults is what of a log the runtime wrote, and the records of panics.
func faults(log string) string {
	var said strings.Builder
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") || strings.Contains(line, `"reason":"panic"`) {
			said.WriteString(line)
		}
	}
	return said.String()
}

// ends is the beginning and the end of a log: of some hundred flows the rest hides
// what the test had to say.
func ends(log string) string {
	const head, tail = 20, 40
	lines := strings.SplitAfter(log, "\n")
	if n := len(lines) - head - tail; n > 0 {
		left := fmt.Sprintf("[%d lines more]\n", n)
		return strings.Join(lines[:head], "") + left + strings.Join(lines[len(lines)-tail:], "")
	}
	return log
}

func (p *Program) read(r io.Reader, each func(string)) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		p.mu.Lock()
		each(s.Text())
		p.mu.Unlock()
		p.wake()
	}
}

func (p *Program) wake() {
	p.mu.Lock()
	close(p.news)
	p.news = make(chan struct{})
	p.mu.Unlock()
}

func (p *Program) listening(line string) {
	var l struct{ Name, Addr string }
	if json.Unmarshal([]byte(line), &l) == nil && l.Name != "" {
		p.addrs[l.Name] = l.Addr
		p.order = append(p.order, l.Name)
	}
}

func (p *Program) logged(line string) {
	p.stderr.WriteString(line + "\n")
	var r Record
	if json.Unmarshal([]byte(line), &r) == nil {
		p.lines = append(p.lines, r)
	}
}

// said reports whether a log line holds text; p.mu is held.
func (p *Program) said(text string) bool {
	for _, r := range p.lines {
		if strings.Contains(r.Text("msg"), text) {
			return true
		}
	}
	return false
}

func (p *Program) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// until waits for cond, which is asked under p.mu whenever a line has come.
func (p *Program) until(what string, cond func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	for {
		p.mu.Lock()
		ok, news := cond(), p.news
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-news:
		case <-ctx.Done():
			p.t.Fatalf("waited in vain for %s; the log so far:\n%s", what, ends(p.Stderr()))
		}
	}
}

// Addr is where the listener of that name listens; "" is the first one.
func (p *Program) Addr(name string) string {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if name == "" && len(p.order) > 0 {
		name = p.order[0]
	}
	a, ok := p.addrs[name]
	if !ok {
		p.t.Fatalf("no listener %q among %v", name, p.order)
	}
	return a
}

// WaitListeners waits until n listeners are bound.
func (p *Program) WaitListeners(n int) {
	p.t.Helper()
	p.until("all listeners", func() bool { return len(p.order) >= n || p.exited() })
}

// Flow waits for a flow record that match takes.
func (p *Program) Flow(what string, match func(Record) bool) Record {
	p.t.Helper()
	var found Record
	p.until("a flow record: "+what, func() bool {
		for _, r := range p.lines {
			if r.Text("msg") == "flow" && match(r) {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// Flows waits until there are n flow records and gives them.
func (p *Program) Flows(n int) []Record {
	p.t.Helper()
	var found []Record
	p.until("flow records", func() bool {
		found = found[:0]
		for _, r := range p.lines {
			if r.Text("msg") == "flow" {
				found = append(found, r)
			}
		}
		return len(found) >= n
	})
	return found
}

// WaitLog waits for a log line whose message holds text.
func (p *Program) WaitLog(text string) {
	p.t.Helper()
	p.until("the log to say "+text, func() bool { return p.said(text) })
}

// Logged waits for the n-th log line whose message holds text, counted from 1, and
// gives it.
func (p *Program) Logged(text string, n int) Record {
	p.t.Helper()
	return p.LoggedAs(text, n, func(r Record) bool { return strings.Contains(r.Text("msg"), text) })
}

// LoggedAs waits for the n-th log line that match takes, counted from 1, and gives it.
func (p *Program) LoggedAs(what string, n int, match func(Record) bool) Record {
	p.t.Helper()
	var found Record
	p.until(fmt.Sprintf("the log to say %s, %d times", what, n), func() bool {
		seen := 0
		for _, r := range p.lines {
			if match(r) {
				if seen++; seen == n {
					found = r
					return true
				}
			}
		}
		return false
	})
	return found
}

// Reason waits for a flow record with that reason.
func (p *Program) Reason(reason string) Record {
	p.t.Helper()
	return p.Flow("reason "+reason, func(r Record) bool { return r.Text("reason") == reason })
}

// Stderr is what came on standard error so far.
func (p *Program) Stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

// Signal sends s.
func (p *Program) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// SignalAgain sends s to a program that may have ended by an earlier one.
func (p *Program) SignalAgain(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// Pid is the process's.
func (p *Program) Pid() int { return p.cmd.Process.Pid }

// Wait waits until the program has ended, and gives its exit code.
func (p *Program) Wait() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(Patience):
		p.t.Fatalf("the program did not end; its log:\n%s", p.Stderr())
	}
	return p.cmd.ProcessState.ExitCode()
}
