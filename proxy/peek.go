package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// peek reads the ClientHello, notes it in f, and gives a connection on which it
// can be read again.
func peek(l *Listener, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	if l.Peek == PeekNever {
		return c, nil
	}
	if l.PeekTimeout > 0 {
		c.SetReadDeadline(f.Start.Add(l.PeekTimeout))
		defer c.SetReadDeadline(time.Time{})
	}
	read := readHello
	if c.Transport() == flow.Datagram {
		read = readDatagramHello
	}
	hello, held, err := read(c)
	f.Peeked = time.Since(f.Start)
	if err != nil {
		return nil, unreadHeader(l, f, held, err)
	}
	if err := note(l, f, hello); err != nil {
		return nil, err
	}
	again := &replay{Conn: c, units: flow.Units(c), held: held}
	if p, ok := c.(flow.Packets); ok {
		return &packetReplay{again, p}, nil
	}
	return again, nil
}

// note has f keep of the hello what later stages ask for, and no more.
func note(l *Listener, f *flow.Flow, hello *wire.Hello) error {
	f.Hello = hello
	f.Print = flow.Print{JA3: hello.JA3(), JA4: hello.JA4()}
	if l.OpenECH != nil && hello.ECH != nil {
		inner, err := l.OpenECH(hello)
		if err != nil {
			return flow.Fail(flow.HelloMalformed, "opening the client's encrypted ClientHello: %w", err)
		}
		if inner != nil {
			f.Outer, f.Hello = hello, inner
		}
	}
	f.Hello.Forget()
	if f.Outer != nil {
		f.Outer.Forget()
	}
	return nil
}

// readHello reads no more than the segments that a ClientHello spans. The bytes
// read are given back with any answer.
func readHello(c flow.Conn) (*wire.Hello, []byte, error) {
	var r wire.HelloReader
	held := make([]byte, 0, 2048) // a post-quantum hello with its key share is some 1,700 bytes
	for {
		if len(held) == cap(held) {
			held = append(held, 0)[:len(held)]
		}
		n, err := c.Read(held[len(held):cap(held)])
		fresh := held[len(held) : len(held)+n]
		held = held[:len(held)+n]
		if n > 0 {
			hello, err := r.Feed(fresh)
			if hello != nil {
				return hello, held, nil
			}
			if !errors.Is(err, wire.ErrMore) {
				return nil, held, helloError(err, held)
			}
		}
		if err != nil {
			return nil, held, helloReadError(err, len(held))
		}
	}
}

func helloError(err error, held []byte) error {
	switch {
	case wire.LooksLikeHTTP(held):
		return flow.Fail(flow.PlainHTTP, "the client speaks plain HTTP, this port TLS")
	case errors.Is(err, wire.ErrNotTLS):
		return flow.Fail(flow.NotTLS, "the client does not speak TLS: it began with %q", held[:min(len(held), 16)])
	case errors.Is(err, wire.ErrTooLarge):
		return flow.Fail(flow.HelloTooLarge, "reading the ClientHello: %w", err)
	}
	return flow.Fail(flow.HelloMalformed, "reading the ClientHello: %w", err)
}

// unreadHeader has err say why a PROXY header that the client began with was not read:
// who runs the proxies before us is the one to mend it.
func unreadHeader(l *Listener, f *flow.Flow, held []byte, err error) error {
	if flow.AsError(err, flow.Internal).Reason != flow.NotTLS || !wire.LooksLikePROXY(held) {
		return err
	}
	const text = "the client does not speak TLS: it began with a PROXY header, "
	switch {
	case len(l.Preamble) == 0 && l.Header == nil:
		return flow.Fail(flow.NotTLS, text+"and proxy_protocol is off on this listener")
	case f.Asked.Client.IsValid() || !f.Origin.Client.IsValid(): // whom we believe
		return flow.Fail(flow.NotTLS, text+"behind one that was read already")
	}
	return flow.Fail(flow.NotTLS, text+"which is not read from %s: proxy_trust does not list it, or one that names nobody was read before", f.Origin.Client.Addr())
}

func helloReadError(err error, got int) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return flow.Fail(flow.HelloTimeout, "no complete ClientHello in time, %d bytes came", got)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return flow.Fail(flow.ClientGone, "the client left after %d bytes, before its ClientHello was complete", got)
	}
	return flow.Fail(flow.ClientGone, "the client left after %d bytes: %w", got, err)
}

// replay gives the bytes that were peeked at once more, then is its connection.
type replay struct {
	flow.Conn
	units flow.UnitReader // Conn's
	held  []byte
	spent atomic.Bool // nothing is held; whoever writes asks this too
}

func (r *replay) take(p []byte) int {
	n := copy(p, r.held)
	// Of a datagram, what p has no room for is lost, as it is on a socket.
	if r.held = r.held[n:]; len(r.held) == 0 || r.Transport() == flow.Datagram {
		r.held = nil
		r.spent.Store(true)
	}
	return n
}

func (r *replay) Read(p []byte) (int, error) {
	if r.held != nil {
		return r.take(p), nil
	}
	return r.Conn.Read(p)
}

func (r *replay) ReadUnit(lease func() []byte) ([]byte, error) {
	if r.held != nil {
		p := lease()
		return p[:r.take(p)], nil
	}
	return r.units.ReadUnit(lease)
}

// WriteUnit implements [flow.UnitWriter].
func (r *replay) WriteUnit(p []byte, taken func()) (int, error) {
	return flow.Writes(r.Conn).WriteUnit(p, taken)
}

func (r *replay) Abort() error { return flow.Abort(r.Conn) }

func (r *replay) Unsent() (int, error) { return unsent(r.Conn) }

func (r *replay) WhenReadable(f func()) error {
	w, ok := r.Conn.(flow.Waiter)
	switch {
	case !ok:
		return errors.ErrUnsupported
	case r.held != nil:
		go f()
		return nil
	}
	return w.WhenReadable(f)
}

func (r *replay) Bare() *net.TCPConn {
	if !r.spent.Load() {
		return nil
	}
	return bareOf(r.Conn)
}

func bareOf(c flow.Conn) *net.TCPConn {
	if b, ok := c.(flow.Bare); ok {
		return b.Bare()
	}
	return nil
}
