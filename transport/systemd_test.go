package transport

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"sallyport/flow"
)

// helperVar makes this test binary a service that systemd has started.
const helperVar = "SALLYPORT_TEST_SYSTEMD"

func TestMain(m *testing.M) {
	if names := os.Getenv(helperVar); names != "" {
		service(strings.Split(names, ","))
		return
	}
	goleak.VerifyTestMain(m)
}

// service listens on each name, says what it heard, and does it again: as after a reload.
func service(names []string) {
	for range 2 {
		for _, name := range names {
			serve := serveOne
			if of, packets := strings.CutPrefix(name, "packets of "); packets {
				name, serve = of, servePackets
			}
			fmt.Printf("%s: %s\n", name, serve(name))
		}
	}
	fmt.Printf("left in the environment: %q\n", os.Getenv("LISTEN_FDS")+os.Getenv("LISTEN_FDNAMES"))
}

func serveOne(name string) string {
	ctx, lease := context.Background(), func() []byte { return make([]byte, 100) }
	a, err := Listen(ctx, name, Where{Systemd: name})
	if err != nil {
		return err.Error()
	}
	defer a.Close()
	client, err := net.Dial(a.Addr().Network(), a.Addr().String())
	if err != nil {
		return err.Error()
	}
	defer client.Close()
	fmt.Fprint(client, "hello")
	_, c, err := a.Accept(ctx)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	unit, err := flow.Units(c).ReadUnit(lease)
	return fmt.Sprintf("%s %s %v", a.Addr().Network(), unit, err)
}

func servePackets(name string) string {
	ctx := context.Background()
	a, err := ListenPackets(ctx, name, Where{Systemd: name}, PacketOptions{})
	if err != nil {
		return err.Error()
	}
	defer a.Close()
	client, err := net.Dial("udp", a.Addr().String())
	if err != nil {
		return err.Error()
	}
	defer client.Close()
	fmt.Fprint(client, "hello")
	_, c, err := a.Accept(ctx)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	p := make([]byte, 100)
	n, err := c.Read(p)
	if err != nil {
		return err.Error()
	}
	fmt.Fprintf(c, "%s yourself", p[:n])
	n, err = client.Read(p)
	return fmt.Sprintf("%s %s %v", a.Addr().Network(), p[:n], err)
}

func TestSystemdHandsSocketsOver(t *testing.T) {
	var files []*os.File
	add := func(f *os.File, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	add(tcp.File())
	path := t.TempDir() + "/s"
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	add(unix.File())
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	add(udp.File())
	add(tcp.File())
	add(tcp.File())
	gram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: t.TempDir() + "/g", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer gram.Close()
	add(gram.File())

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// LISTEN_PID is the service's own, which only a shell that becomes it knows before.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, exe)
	cmd.Env = append(os.Environ(), helperVar+"=web,local,voice,other,twice,packets of voice,packets of web,packets of gram,packets of other", "LISTEN_FDS=6", "LISTEN_FDNAMES=web:local:voice:twice:twice:gram")
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	once := `web: tcp hello <nil>
local: unix hello <nil>
voice: listening on systemd:voice: the socket is none that listens for streams
other: listening on systemd:other: systemd handed over no socket of that name, only gram, local, twice, twice, voice, web; see FileDescriptorName= of the .socket unit
twice: listening on systemd:twice: systemd handed over 2 sockets of that name; give each .socket unit its own FileDescriptorName=
voice: udp hello yourself <nil>
web: listening on systemd:web: the socket is none of datagrams; the .socket unit needs ListenDatagram=
gram: listening on systemd:gram: a unixgram socket is not UDP
other: listening on systemd:other: systemd handed over no socket of that name, only gram, local, twice, twice, voice, web; see FileDescriptorName= of the .socket unit
`
	if want := once + once + "left in the environment: \"\"\n"; string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error("the socket's file is systemd's to remove")
	}
}
