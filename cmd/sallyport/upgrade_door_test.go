package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/testnet"
	"sallyport/transport"
)

// startBehindDoor runs a file, and gives how whoever is to take over is started, and
// where the process waits for that.
func startBehindDoor(t *testing.T, text string) (r *reloader, in func(*exec.Cmd), door string) {
	t.Helper()
	dir := t.TempDir()
	in = func(cmd *exec.Cmd) { promptly(cmd); cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+dir) }
	r = &reloader{site: newSite(t), file: filepath.Join(t.TempDir(), "sallyport.yaml"), echo: serveEach(t, echo)}
	r.write(t, text)
	r.Program = testnet.StartIn(t, in, "run", "-c", r.file)
	door = filepath.Join(dir, "upgrade.sock")
	eventually(t, "the door", func() bool {
		c, err := net.Dial("unix", door)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	r.WaitLog("not handed over") // it has been heard out
	return r, in, door
}

// wantTakenOver has a new process take over from r, and serve.
func wantTakenOver(t *testing.T, r *reloader, in func(*exec.Cmd)) *testnet.Program {
	t.Helper()
	next := testnet.StartIn(t, in, "upgrade", "-c", r.file)
	if code := r.Wait(); code != 0 {
		t.Errorf("the exit code of the old one is %d", code)
	}
	if _, err := r.knock(next.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
		t.Error(err)
	}
	return next
}

// readOffer gives the token of one offer, and lets go of what came with it.
func readOffer(t *testing.T, c *net.UnixConn) string {
	t.Helper()
	text, files, err := transport.ReceiveFiles(c)
	closeFiles(files)
	var o struct{ Token string }
	if err == nil {
		err = json.Unmarshal(text, &o)
	}
	if err != nil {
		t.Errorf("reading an offer: %v", err)
	}
	return o.Token
}

// Who does not answer what was offered takes nothing over, though the user be the same.
func TestUpgradeWantsOffersAnswered(t *testing.T) {
	r, in, door := startBehindDoor(t, oneListener)
	says := func(text string) func(*net.UnixConn) { return func(c *net.UnixConn) { c.Write([]byte(text)) } }
	for name, stranger := range map[string]func(*net.UnixConn){
		"newlines":            says(strings.Repeat("\n", 100)),
		"bytes":               says("GET / HTTP/1.1\r\n\r\n"),
		"another version":     says("2"),
		"asks, then newlines": says("1" + strings.Repeat("\n", 100)),
		"without the token":   func(c *net.UnixConn) { says("1")(c); readOffer(t, c); says("has \n")(c) },
		"with another token": func(c *net.UnixConn) {
			says("1")(c)
			says("has " + strings.Repeat("A", len(readOffer(t, c))) + "\n")(c)
		},
		"with an offer's twice": func(c *net.UnixConn) {
			says("1")(c)
			token := readOffer(t, c)
			says("has " + token + "\n")(c)
			readOffer(t, c)
			says("has " + token + "\n")(c)
		},
		"begins before the end": func(c *net.UnixConn) { says("1")(c); says("begun " + readOffer(t, c) + "\n")(c) },
	} {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: door, Net: "unix"})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		was := bytes.Count([]byte(r.Stderr()), []byte("not handed over"))
		stranger(c)
		said := r.Logged("not handed over, what ran before goes on", was+1)
		if !strings.Contains(said.Text("err"), "no `sallyport upgrade`, or one of another version") {
			t.Errorf("%s: it says %v", name, said)
		}
		c.Close()
		if _, err := r.knock(r.Addr("a"), r.clientConfig(tls.VersionTLS13)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if strings.Contains(r.Stderr(), "has taken over") {
		t.Error("a stranger has taken over")
	}
	wantTakenOver(t, r, in)
}

// Who connects and says nothing holds up neither a reload nor who takes over.
func TestUpgradeOfSilentPeers(t *testing.T) {
	r, in, door := startBehindDoor(t, oneListener)
	for range 3 {
		c, err := net.Dial("unix", door)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	began := time.Now()
	r.mustReload(t, oneListener)
	wantTakenOver(t, r, in)
	if took := time.Since(began); took >= 2*handoverStep { // three, one after the other, would take longer
		t.Errorf("it took %v", took)
	}
}

// A process of another version, which takes any byte for an acknowledgement of its
// offers, is not made to end, and is told apart in words.
func TestUpgradeOfAnotherVersion(t *testing.T) {
	dir := t.TempDir()
	door, err := transport.ListenDoor(t.Context(), filepath.Join(dir, "upgrade.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	heard := make(chan string, 1)
	go func() {
		c, err := door.AcceptUnix()
		if err != nil {
			heard <- err.Error()
			return
		}
		defer c.Close()
		transport.SendFiles(c, []byte(`{"key":""}`))
		said, _ := io.ReadAll(c)
		heard <- string(said)
	}()
	file := write(t, "sallyport.yaml", "listeners:\n  - {from: 'tcp://127.0.0.1:0', to: 'tcp://127.0.0.1:1'}\n")
	p := testnet.Launch(t, func(cmd *exec.Cmd) { promptly(cmd); cmd.Env = append(cmd.Env, "RUNTIME_DIRECTORY="+dir) }, "upgrade", "-c", file)
	if code := p.Wait(); code != exitFailed || !strings.Contains(p.Stderr(), "hands over in another way: restart it") {
		t.Errorf("it ends with %d: %s", code, p.Stderr())
	}
	if said := <-heard; len(said) != 1 {
		t.Errorf("it has said %q, of which two bytes would end the other one", said)
	}
}
