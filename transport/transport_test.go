package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/flow"
)

// listen gives an acceptor on w and its port, which is 0 for a unix socket.
func listen(t testing.TB, w Where) (*Acceptor, uint16) {
	t.Helper()
	a, err := Listen(t.Context(), "here", w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a, addrPort(a.Addr()).Port()
}

// pair connects through a fresh listener on w: the accepted end, its flow, and the dialled one.
func pair(t testing.TB, w Where) (server, client flow.Conn, f *flow.Flow) {
	t.Helper()
	a, port := listen(t, w)
	if w.Unix == "" {
		w.Port = port
	}
	if w.Host == "" && w.Unix == "" {
		w.Host = "127.0.0.1"
	}
	client, err := (&Dialer{Where: w}).Dial(t.Context(), &flow.Flow{})
	if err != nil {
		t.Fatal(err)
	}
	f, server, err = a.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client, f
}

func TestAcceptFillsTheOrigin(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", ""} {
		t.Run(host, func(t *testing.T) {
			s, c, f := pair(t, Where{Host: host})
			if f.Origin.Listener != "here" || f.Origin.Transport != flow.Stream || time.Since(f.Start) > time.Minute {
				t.Errorf("origin %+v, start %v", f.Origin, f.Start)
			}
			if got, want := f.Origin.Client, addrPort(c.LocalAddr()); got != want {
				t.Errorf("client %v, want %v", got, want)
			}
			if got, want := f.Origin.Local, addrPort(c.RemoteAddr()); got != want {
				t.Errorf("local %v, want %v", got, want)
			}
			if s.(flow.Bare).Bare() == nil {
				t.Error("no bare socket")
			}
		})
	}
}

func TestEmptyHostIsBothFamilies(t *testing.T) {
	a, port := listen(t, Where{})
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := (&Dialer{Where: Where{Host: host, Port: port}}).Dial(t.Context(), &flow.Flow{})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		f, s, err := a.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if got := f.Origin.Client.Addr().String(); got != host {
			t.Errorf("client %s, want %s", got, host)
		}
	}
}

type option struct {
	name             string
	level, opt, want int
}

var keepAliveOptions = []option{
	{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
	{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
	{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 4},
	{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0},
}

func wantOptions(t *testing.T, name string, raw syscall.RawConn, options []option) {
	t.Helper()
	for _, o := range options {
		var got int
		var err error
		if cerr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), o.level, o.opt) }); cerr != nil {
			t.Fatal(cerr)
		}
		if err != nil || got != o.want {
			t.Errorf("%s: %s is %d, want %d (%v)", name, o.name, got, o.want, err)
		}
	}
}

func rawOf(t *testing.T, c flow.Conn) syscall.RawConn {
	t.Helper()
	raw, err := c.(flow.Bare).Bare().SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestConnectionsInheritTheirOptions(t *testing.T) {
	s, c, _ := pair(t, Where{Host: "127.0.0.1"})
	wantOptions(t, "accepted", rawOf(t, s), keepAliveOptions)
	wantOptions(t, "dialled on this host", rawOf(t, c), []option{{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0}})
	for _, end := range []flow.Conn{s, c} {
		wantOptions(t, "either", rawOf(t, end), []option{{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}})
	}
}

func TestDialledServersAreKeptAlive(t *testing.T) {
	for _, address := range []string{"192.0.2.1:443", "[2001:db8::1]:443"} {
		var lc net.ListenConfig // any TCP socket will do
		lc.SetMultipathTCP(false)
		l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := dialControl("tcp", address, raw); err != nil {
			t.Fatal(err)
		}
		wantOptions(t, address, raw, keepAliveOptions)
		l.Close()
	}
}

func TestListenErrorsAreWords(t *testing.T) {
	_, port := listen(t, Where{Host: "127.0.0.1"})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(t.TempDir(), "live")
	listen(t, Where{Unix: live})
	abstract := fmt.Sprintf("@sallyport-test-%d", os.Getpid())
	listen(t, Where{Unix: abstract})
	for _, c := range []struct {
		w    Where
		is   error
		want string
	}{
		{Where{Host: "127.0.0.1", Port: port}, syscall.EADDRINUSE, fmt.Sprintf("listening on 127.0.0.1:%d: another process listens on 127.0.0.1:%[1]d; `ss -ltnp sport = :%[1]d` shows which", port)},
		{Where{Host: "192.0.2.1", Port: 4433}, syscall.EADDRNOTAVAIL, "192.0.2.1 is no address of this host"},
		{Where{Host: "no-such-host.invalid", Port: 4433}, nil, "does not resolve to an address of this host"},
		{Where{Unix: live}, syscall.EADDRINUSE, "another process listens there"},
		{Where{Unix: abstract}, syscall.EADDRINUSE, "another process listens there"},
		{Where{Unix: file}, syscall.EADDRINUSE, "is no socket"},
		{Where{Unix: "/no/such/folder/x.sock"}, os.ErrNotExist, "the folder of /no/such/folder/x.sock does not exist"},
		{Where{Unix: "/" + strings.Repeat("x", 200)}, syscall.EINVAL, "may have 107 bytes"},
		{Where{Systemd: "web"}, nil, "systemd handed over no socket; start the .socket unit"},
	} {
		a, err := Listen(t.Context(), "here", c.w)
		if err == nil {
			a.Close()
			t.Errorf("%s: no error", c.w)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.w, err)
		}
	}
	// As root the system itself would not refuse.
	if got := listenError(Where{Port: 443}, syscall.EACCES, "t").Error(); got != "port 443 needs CAP_NET_BIND_SERVICE or root, or a socket from systemd" {
		t.Error(got)
	}
}

func TestUnixSocketFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, c, f := pair(t, Where{Unix: path})
	if f.Origin.Client.IsValid() || f.Origin.Local.IsValid() || s.(flow.Bare).Bare() != nil {
		t.Errorf("a unix socket has no address and is not TCP: %+v", f.Origin)
	}
	if _, err := c.Write([]byte("ab")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); string(got) != "ab" || err != nil {
		t.Errorf("%q %v", got, err)
	}

	// What a killed process leaves: a file on which nobody listens.
	stale := filepath.Join(t.TempDir(), "stale")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	first, _ := listen(t, Where{Unix: stale})

	// Whoever took the path over keeps it when the first one closes.
	if err := os.Remove(stale); err != nil {
		t.Fatal(err)
	}
	second, _ := listen(t, Where{Unix: stale})
	first.Close()
	if _, err := os.Lstat(stale); err != nil {
		t.Error("the file of another listener was removed")
	}
	second.Close()
	if _, err := os.Lstat(stale); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file stays after Close")
	}
}

func TestAcceptEndsWithItsContextAndWithClose(t *testing.T) {
	a, port := listen(t, Where{Host: "127.0.0.1"})
	for range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { _, _, err := a.Accept(ctx); done <- err }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	// The past deadline must not end the next one.
	go func() {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			c.Close()
		}
	}()
	if _, c, err := a.Accept(t.Context()); err != nil {
		t.Fatal(err)
	} else {
		c.Close()
	}
	done := make(chan error)
	go func() { _, _, err := a.Accept(t.Context()); done <- err }()
	a.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, _, err := a.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

type fakeListener struct{ net.Listener }

func (fakeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func TestAcceptOutlivesTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free time.Time
		a := newAcceptor("here", &source{
			Listener: fakeListener{},
			accept: func() (socket, error) {
				if time.Now().Before(free) {
					return nil, os.NewSyscallError("accept4", syscall.EMFILE)
				}
				return nil, net.ErrClosed
			},
			close:       func() error { return nil },
			setDeadline: func(bool) error { return nil },
		})
		var told []error
		a.OnTrouble(func(err error) { told = append(told, err) })
		for _, lasts := range []time.Duration{3 * time.Millisecond, 100 * time.Millisecond, time.Minute} {
			free, told = time.Now().Add(lasts), nil
			if _, _, err := a.Accept(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Fatal(err)
			}
			if late := time.Since(free); late > time.Second {
				t.Errorf("%v of trouble: recovered %v late", lasts, late)
			}
			if most := 8 + int(lasts/time.Second); len(told) == 0 || len(told) > most {
				t.Errorf("%v of trouble: told %d times", lasts, len(told))
			}
			if got := told[0].Error(); got != "accepting on 127.0.0.1:443: out of file descriptors; raise LimitNOFILE= or `ulimit -n`" {
				t.Error(got)
			}
		}
		free = time.Now().Add(time.Hour)
		go func() { time.Sleep(10 * time.Second); a.Close() }()
		start := time.Now()
		if _, _, err := a.Accept(t.Context()); !errors.Is(err, net.ErrClosed) || time.Since(start) != 10*time.Second {
			t.Errorf("Close while in trouble: %v after %v", err, time.Since(start))
		}
	})
}

func TestResolveOverrides(t *testing.T) {
	_, port := listen(t, Where{Host: "127.0.0.1"})
	lo := netip.MustParseAddr("127.0.0.1")
	for _, c := range []struct {
		name    string
		resolve []Override
		ok      bool
	}{
		{"exact", []Override{{"db.invalid", port, lo}}, true},
		{"case", []Override{{"DB.Invalid", port, lo}}, true},
		{"other port", []Override{{"db.invalid", port + 1, lo}}, false},
		{"other host", []Override{{"web.invalid", port, lo}}, false},
		{"every host", []Override{{"*", port, lo}}, true},
		{"the named one before every host", []Override{{"*", port, netip.MustParseAddr("127.0.0.99")}, {"db.invalid", port, lo}}, true},
	} {
		d := &Dialer{Where: Where{Host: "db.invalid", Port: port}, Resolve: c.resolve, Timeout: 10 * time.Second}
		f := &flow.Flow{}
		conn, err := d.Dial(t.Context(), f)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			conn.Close()
			if want := netip.AddrPortFrom(lo, port).String(); f.Dialled.Addr != want || f.Dialled.Took <= 0 {
				t.Errorf("%s: %+v, want %s", c.name, f.Dialled, want)
			}
		} else if e := flow.AsError(err, flow.Internal); e.Reason != flow.NameNotResolved || e.Fault != flow.FaultServer {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
}

func TestDialErrorsAreWords(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := addrPort(l.Addr()).Port()
	l.Close()
	// A queue of one that nobody accepts from: SYNs are dropped once it is full.
	full := fullBacklog(t)
	d := &Dialer{Where: Where{Host: "db.invalid", Port: port}, Resolve: []Override{{"db.invalid", port, netip.MustParseAddr("127.0.0.1")}}}
	check := func(d *Dialer, ctx context.Context, r flow.Reason, who flow.Fault, is error, want string) {
		t.Helper()
		_, err := d.Dial(ctx, &flow.Flow{})
		e, ok := errors.AsType[*flow.Error](err)
		if !ok || e.Reason != r || e.Fault != who || is != nil && !errors.Is(err, is) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", e, err)
		}
	}
	check(d, t.Context(), flow.DialRefused, flow.FaultServer, syscall.ECONNREFUSED,
		fmt.Sprintf("connecting to db.invalid:%d (127.0.0.1:%[1]d): refused; is the server running?", port))
	check(&Dialer{Where: Where{Host: "127.0.0.1", Port: full}, Timeout: 50 * time.Millisecond}, t.Context(), flow.DialTimeout, flow.FaultServer, nil, "no answer in time")
	check(&Dialer{Where: Where{Host: "no-such-host.invalid", Port: 1}}, t.Context(), flow.NameNotResolved, flow.FaultServer, nil, "connecting to no-such-host.invalid:1: the name ")
	check(&Dialer{Where: Where{Unix: "/no/such.sock"}}, t.Context(), flow.DialRefused, flow.FaultServer, os.ErrNotExist, "connecting to unix:/no/such.sock: there is no such socket")

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	check(&Dialer{Where: Where{Host: "127.0.0.1", Port: full}}, ctx, flow.Drained, flow.FaultNone, context.Canceled, "given up")
	gone, leave := context.WithCancelCause(t.Context())
	leave(flow.Fail(flow.ClientGone, "the client left"))
	check(&Dialer{Where: Where{Host: "127.0.0.1", Port: full}}, gone, flow.ClientGone, flow.FaultClient, nil, "the client left")

	for _, c := range []struct {
		errno syscall.Errno
		fault flow.Fault
	}{{syscall.EADDRNOTAVAIL, flow.FaultOurs}, {syscall.EMFILE, flow.FaultOurs}, {syscall.EPERM, flow.FaultOurs}, {syscall.EAGAIN, flow.FaultOurs},
		{syscall.EHOSTUNREACH, flow.FaultServer}, {syscall.EPROTO, flow.FaultServer}} {
		err := d.dialError(t.Context(), &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", c.errno)})
		if e := flow.AsError(err, flow.Internal); e.Reason != flow.DialFailed || e.Fault != c.fault || !errors.Is(err, c.errno) {
			t.Errorf("%v: %+v", c.errno, e)
		}
	}
}

func fullBacklog(t *testing.T) (port uint16) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port = uint16(sa.(*unix.SockaddrInet4).Port)
	for range 8 {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 20*time.Millisecond)
		if err != nil {
			return port
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("the queue does not fill")
	return 0
}

func TestAbortIsAReset(t *testing.T) {
	s, c, _ := pair(t, Where{Host: "127.0.0.1"})
	if err := flow.Abort(c); err != nil {
		t.Fatal(err)
	}
	if _, err := flow.Units(s).ReadUnit(func() []byte { return make([]byte, 10) }); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, want a reset", err)
	}
}
