package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sallyport/flow"
)

// Dialer opens connections to one place, or with Packets associations: there a
// dial sends nothing, and finds only what this host lacks. It tries the addresses of a name as RFC
// 8305 says (happy eyeballs).
type Dialer struct {
	Where   Where
	Timeout time.Duration // for everything, names included; 0 means none but the context's
	Resolve []Override
	Poller  *Poller // where its connections rest; nil: nowhere
	Packets bool    // a UDP socket in place of a TCP connection; Where has a host
	// Names gives the addresses of Where.Host, which is a name; its errors are a
	// [*net.DNSError]. nil: the system's resolver is asked, each time.
	Names func(context.Context) ([]netip.Addr, error)
}

var _ flow.Dialer = (*Dialer)(nil)

// Override says to which address a host and port go, as curl's --resolve. The
// host * takes every host that no other one names.
type Override struct {
	Host string
	Port uint16
	Addr netip.Addr
}

// Dial implements flow.Dialer and fills f.Dialled, also where it fails. Its
// errors are a [*flow.Error].
func (d *Dialer) Dial(ctx context.Context, f *flow.Flow) (flow.Conn, error) {
	network, target := "tcp", d.target()
	switch {
	case d.Packets:
		network = "udp"
	case d.Where.Unix != "":
		network, target = "unix", d.Where.Unix
	}
	nd := net.Dialer{Timeout: d.Timeout, Control: dialControl, KeepAlive: -1}
	start := time.Now()
	c, err := d.dial(ctx, &nd, network, target)
	f.Dialled = flow.Dialled{Addr: target, Took: time.Since(start)}
	if err != nil {
		return nil, d.dialError(ctx, err)
	}
	if network != "unix" {
		f.Dialled.Addr = c.RemoteAddr().String()
	}
	fc, err := d.conn(c)
	if err != nil {
		c.Close()
		return nil, flow.Fail(flow.Internal, "connecting to %s: %w", d.Where, err)
	}
	return fc, nil
}

func (d *Dialer) dial(ctx context.Context, nd *net.Dialer, network, target string) (net.Conn, error) {
	if d.Names == nil || d.Overridden() {
		return nd.DialContext(ctx, network, target)
	}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout)
		defer cancel()
	}
	addrs, err := d.Names(ctx)
	switch {
	case err != nil:
		return nil, err
	case len(addrs) == 0:
		return nil, &net.DNSError{Err: "no address", Name: d.Where.Host, IsNotFound: true}
	case d.Packets:
		return first(ctx, nd, addrs, d.Where.Port)
	}
	return race(ctx, nd, addrs, d.Where.Port)
}

func (d *Dialer) conn(c net.Conn) (flow.Conn, error) {
	if u, ok := c.(*net.UDPConn); ok {
		return newDatagrams(u, d.Poller, d.Where)
	}
	return newConn(c.(socket), d.Poller)
}

func (d *Dialer) target() string {
	if to, ok := overridden(d.Resolve, d.Where.Host, d.Where.Port); ok {
		return netip.AddrPortFrom(to, d.Where.Port).String()
	}
	return net.JoinHostPort(d.Where.Host, strconv.Itoa(int(d.Where.Port)))
}

// Overridden says whether Resolve has the address, so that nobody is asked for it.
func (d *Dialer) Overridden() bool {
	_, ok := overridden(d.Resolve, d.Where.Host, d.Where.Port)
	return ok
}

// overridden is where list has host and port go, if it names them.
func overridden(list []Override, host string, port uint16) (to netip.Addr, ok bool) {
	for _, o := range list {
		switch {
		case o.Port != port:
		case strings.EqualFold(o.Host, host):
			return o.Addr, true
		case o.Host == "*" && !ok:
			to, ok = o.Addr, true
		}
	}
	return to, ok
}

// dialError says in words what happened, and whose fault it is.
func (d *Dialer) dialError(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		// Whoever cancelled knows why; without a word from there, it is the end
		// of the process. In no case has the server failed.
		if cause, ok := errors.AsType[*flow.Error](context.Cause(ctx)); ok {
			return cause
		}
		return flow.Fail(flow.Drained, "connecting to %s: given up: %w", d.Where, context.Cause(ctx))
	}
	where := d.Where.String()
	cause := err
	if op, ok := errors.AsType[*net.OpError](err); ok {
		cause = op.Err
		if d.Where.Unix == "" && op.Addr != nil && op.Addr.String() != where {
			where += " (" + op.Addr.String() + ")"
		}
	}
	reason, fault, what := dialWords(err, d.Where.Unix != "")
	if what == "" {
		what = cause.Error()
	}
	e := flow.Fail(reason, "%w", inWords(cause, "connecting to %s: %s", where, what))
	if fault != flow.FaultNone {
		e.Fault = fault
	}
	return e
}

// dialWords gives a fault only where it is not what the table of reasons says:
// what this host lacks is not the server's.
func dialWords(err error, unix bool) (r flow.Reason, fault flow.Fault, what string) {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsTimeout || dns.IsTemporary {
			return flow.NameNotResolved, flow.FaultNone, "the name cannot be resolved now; is the resolver up? (" + dns.Error() + ")"
		}
		return flow.NameNotResolved, flow.FaultNone, "the name does not resolve; is it spelled right?"
	}
	is := func(list ...error) bool {
		return slices.ContainsFunc(list, func(e error) bool { return errors.Is(err, e) })
	}
	switch {
	case is(syscall.ECONNREFUSED):
		return flow.DialRefused, flow.FaultNone, "refused; is the server running?"
	case is(syscall.ENOENT):
		return flow.DialRefused, flow.FaultNone, "there is no such socket; is the server running?"
	// Before the timeout, which EAGAIN also claims to be.
	case is(syscall.EAGAIN) && unix:
		return flow.DialFailed, flow.FaultNone, "the server's queue of connections is full"
	case is(syscall.EAGAIN, syscall.ENOBUFS, syscall.ENOMEM):
		return flow.DialFailed, flow.FaultOurs, "this host is short of what a connection needs"
	case isTimeout(err):
		return flow.DialTimeout, flow.FaultNone, "no answer in time; is the address right, and no firewall in between?"
	case is(syscall.EHOSTUNREACH, syscall.ENETUNREACH):
		return flow.DialFailed, flow.FaultNone, "no way there; `ip route get` shows where it would go"
	case is(syscall.EADDRNOTAVAIL):
		return flow.DialFailed, flow.FaultOurs, "no local port is free; see net.ipv4.ip_local_port_range"
	case is(syscall.EMFILE, syscall.ENFILE):
		return flow.DialFailed, flow.FaultOurs, "out of file descriptors; raise LimitNOFILE= or `ulimit -n`"
	case is(syscall.EACCES, syscall.EPERM):
		return flow.DialFailed, flow.FaultOurs, "not allowed on this host, by a firewall or by the socket's permissions"
	}
	return flow.DialFailed, flow.FaultNone, ""
}
