package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// TestDemo is what a newcomer does: wait for the table, try its lines, Ctrl-C.
func TestDemo(t *testing.T) {
	temp := t.TempDir()
	var out, records output
	demo := exec.Command(testnet.Binary(t), "demo")
	demo.Env = append(os.Environ(), "TMPDIR="+temp)
	promptly(demo)
	demo.Stdout, demo.Stderr = &out, &records
	if err := demo.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- demo.Wait() }()
	t.Cleanup(func() {
		demo.Process.Kill()
		if t.Failed() {
			t.Logf("%s\n%s", out.String(), records.String())
		}
	})
	eventually(t, "the demo to be ready", func() bool { return strings.Contains(out.String(), "until you press Ctrl-C") })

	text := out.String()
	for _, pattern := range []string{"offload", "encrypt", "bridge", "pass-through"} {
		if !regexp.MustCompile(`(?m)^` + pattern + ` .* ok, `).MatchString(text) {
			t.Errorf("no good line for %s", pattern)
		}
	}
	lines := regexp.MustCompile(`(?m)^  curl (.*)$`).FindAllStringSubmatch(text, -1)
	if len(lines) != 4 {
		t.Fatalf("%d lines for curl", len(lines))
	}
	for _, line := range lines[:2] {
		args := append([]string{"--silent", "--show-error", "--noproxy", "*", "--max-time", "10"}, strings.Fields(line[1])...)
		if got := mustExecute(t, "", "curl", args...); !strings.HasPrefix(got, "hello") {
			t.Errorf("curl %s: %q", line[1], got)
		}
	}
	openssl := regexp.MustCompile(`(?m)^  openssl (.*)$`).FindStringSubmatch(text)
	if openssl == nil {
		t.Fatal("no line for openssl")
	}
	if got := mustExecute(t, "", "openssl", strings.Fields(openssl[1])...); !strings.Contains(got, "Verification: OK") {
		t.Errorf("openssl %s: %q", openssl[1], got)
	}

	if err := demo.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the demo ended by %v", err)
		}
	case <-time.After(testnet.Patience):
		t.Fatal("the demo does not end")
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v (%v)", left, err)
	}
}
