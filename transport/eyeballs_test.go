package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"sallyport/flow"
)

func addrs(texts ...string) (list []netip.Addr) {
	for _, t := range texts {
		list = append(list, netip.MustParseAddr(t))
	}
	return list
}

func TestFamiliesTakeTurns(t *testing.T) {
	got := inTurn(addrs("::1", "::2", "::3", "10.0.0.1", "10.0.0.2", "::4"))
	if want := addrs("::1", "10.0.0.1", "::2", "10.0.0.2", "::3", "::4"); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// full gives an address whose queue of connections is full, so that it does not answer.
func full(t *testing.T, ip string, port uint16) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	at := netip.AddrPortFrom(netip.MustParseAddr(ip), port)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(port), Addr: at.Addr().As4()}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

func TestOneAddressOfANameAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	full(t, "127.0.0.7", port)
	d := &Dialer{Where: Where{Host: "db.test", Port: port}, Timeout: 5 * time.Second}
	for _, list := range [][]netip.Addr{
		addrs("127.0.0.3"),
		addrs("127.0.0.2", "127.0.0.3"),              // refuses at once
		addrs("127.0.0.7", "127.0.0.3"),              // does not answer
		addrs("127.0.0.7", "127.0.0.7", "127.0.0.3"), // nor does the second
	} {
		d.Names = func(context.Context) ([]netip.Addr, error) { return list, nil }
		f := &flow.Flow{}
		start := time.Now()
		c, err := d.Dial(context.Background(), f)
		if err != nil {
			t.Errorf("%v: %v", list, err)
			continue
		}
		c.Close()
		if want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), port).String(); f.Dialled.Addr != want || time.Since(start) > 3*time.Second {
			t.Errorf("%v: %s after %s, want %s", list, f.Dialled.Addr, time.Since(start), want)
		}
	}
}

func TestNoAddressOfANameAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	d := &Dialer{Where: Where{Host: "db.test", Port: port}, Timeout: 300 * time.Millisecond}
	for _, c := range []struct {
		names  func(context.Context) ([]netip.Addr, error)
		reason flow.Reason
	}{
		{func(context.Context) ([]netip.Addr, error) { return addrs("127.0.0.3", "127.0.0.4"), nil }, flow.DialRefused},
		{func(context.Context) ([]netip.Addr, error) { return nil, nil }, flow.NameNotResolved},
		{func(context.Context) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "db.test", IsNotFound: true}
		}, flow.NameNotResolved},
	} {
		d.Names = c.names
		_, err := d.Dial(context.Background(), &flow.Flow{})
		if e := flow.AsError(err, flow.Internal); e == nil || e.Reason != c.reason {
			t.Errorf("%v, want %s", err, c.reason)
		}
	}
	full(t, "127.0.0.7", port)
	d.Names = func(context.Context) ([]netip.Addr, error) { return addrs("127.0.0.7", "127.0.0.7"), nil }
	start := time.Now()
	_, err = d.Dial(context.Background(), &flow.Flow{})
	if e := flow.AsError(err, flow.Internal); e == nil || e.Reason != flow.DialTimeout || time.Since(start) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}
