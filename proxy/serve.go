package proxy

import (
	"context"
	"io"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// serve is one connection from accept to close, in one direction. Where it gives
// no error, end is told of the flow's end, maybe long after serve has returned: a
// flow that rests has no goroutine. The bare client connection is closed by the
// caller's end, the server's here.
func (e *Engine) serve(ctx context.Context, l *Listener, lf *life, f *flow.Flow, bare flow.Conn, end func(error)) error {
	if lf.stranger {
		lf.hide()
	} else {
		e.Observer.Begin(f)
	}
	server := &side{f: f, lf: lf}
	var client flow.Conn
	if err := safely(func() (err error) {
		client, err = e.establish(ctx, l, lf, f, bare, server)
		return err
	}); err != nil {
		server.close()
		return err
	}
	f.Progress.Reach(flow.StageRelay)
	over := func(err error) {
		end(safely(func() error { return part(client, bare, server, err) }))
	}
	if relay := f.Decision.Relay; relay != nil {
		over(safely(func() error { return relay.Relay(ctx, f, client, server.first) }))
		return nil
	}
	e.grown(lf)
	lf.up(client, server.conn)
	relayed(f, client, server.conn, over)
	return nil
}

// part closes both ends as the relay has ended.
func part(client, bare flow.Conn, server *side, err error) error {
	defer server.close()
	if err != nil {
		server.aborted = true
		flow.Abort(bare)
		return at(flow.StageRelay, err, flow.Internal)
	}
	client.Close()
	return nil
}

// establish peeks, decides, and brings both ends up or refuses the client.
func (e *Engine) establish(ctx context.Context, l *Listener, lf *life, f *flow.Flow, bare flow.Conn, server *side) (_ flow.Conn, failed error) {
	client, err := wrap(ctx, f, bare, l.Preamble, flow.StagePreamble)
	if err != nil {
		return nil, refuse(bare, f, flow.StagePreamble, err)
	}
	if len(l.Preamble) > 0 && e.enterClient(l, lf, f) != "" {
		return nil, refuse(bare, f, flow.StagePreamble, flow.Fail(flow.ClientLimited, "%s has as much as limits allows one client", f.Client().Addr()))
	}
	f.Progress.Reach(flow.StagePeek)
	client, err = peek(l, f, client)
	if err != nil {
		return nil, refuse(bare, f, flow.StagePeek, err)
	}
	f.Progress.Reach(flow.StageDecide)
	d := l.Decider.Decide(f)
	f.Decision, server.d = d, d
	lf.setDrain(d.Timeouts.Drain)
	if d.Action == flow.Reject {
		return nil, refuse(bare, f, flow.StageDecide, rejected(d))
	}
	switch {
	case lf.stranger:
		if client, err = e.prove(l, lf, f, client); err != nil {
			return nil, at(flow.StageDecide, err, flow.Internal)
		}
		defer func() {
			if failed != nil {
				client.(*proving).timer.Stop()
			}
		}()
	case d.Action == flow.Splice && f.Hello != nil && f.Hello.DTLS:
		return nil, refuse(bare, f, flow.StageDecide, flow.Fail(flow.HelloMismatch, "the client has shown our cookie, and its hello is for a route now that passes it on"))
	}
	if d.DialFirst || d.Action == flow.Splice || len(d.Inbound) == 0 {
		if err := server.open(ctx); err != nil {
			return nil, refuse(bare, f, server.stage, err)
		}
	}
	if d.Action == flow.Terminate {
		if client, err = wrap(ctx, f, client, d.Inbound, flow.StageInbound); err != nil {
			farewell(bare)
			return nil, err
		}
	}
	if server.conn == nil {
		if err := server.open(ctx); err != nil {
			flow.Abort(bare)
			return nil, at(server.stage, err, flow.Internal)
		}
	}
	return client, nil
}

func rejected(d *flow.Decision) *flow.Error {
	if d.Err != nil {
		return flow.Fail(d.Reason, "choosing a route: %w", d.Err)
	}
	return flow.Fail(d.Reason, "%s", d.Reason.Meaning())
}

// prove gives the client's end that lets a client prove itself to the server.
func (e *Engine) prove(l *Listener, lf *life, f *flow.Flow, client flow.Conn) (flow.Conn, error) {
	packets, ok := client.(*packetReplay)
	if !ok || f.Decision.Action != flow.Splice {
		return nil, flow.Fail(flow.ClientTimeout, "the routes have changed since the client said hello")
	}
	within := f.Decision.Timeouts.Handshake
	if within <= 0 {
		within = unprovenFor
	}
	proved := func() bool {
		if !e.admit(l, lf) {
			return false
		}
		if lf.show() {
			e.Observer.Begin(f)
		}
		return true
	}
	return prove(packets, within, proved, lf.kill), nil
}

// unprovenFor bounds what strangers have us hold where timeouts.handshake does not.
const unprovenFor = 10 * time.Second

// side is the server's side of a flow.
type side struct {
	f       *flow.Flow
	d       *flow.Decision
	lf      *life
	stage   flow.Stage // where open failed
	bare    flow.Conn
	conn    flow.Conn // with its layers
	aborted bool
}

// open dials and wraps the server's side. While nothing of the client's has been sent
// there, another server is as good as the first.
func (s *side) open(ctx context.Context) error {
	s.stage = flow.StageDial
	s.f.Progress.Reach(s.stage)
	bare, err := s.d.Upstream.Dial(ctx, s.f)
	for err == nil {
		s.bare = bare
		s.lf.hold(bare)
		s.stage = flow.StageOutbound
		var failed error
		if s.conn, failed = wrap(ctx, s.f, bare, s.d.Outbound, s.stage); failed == nil {
			return nil
		}
		r, ok := bare.(flow.Retrier)
		if !ok {
			return failed
		}
		bare, err = r.Again(ctx, s.f, failed)
	}
	if flow.AsError(err, flow.DialFailed).Stage != flow.StageOutbound {
		s.stage = flow.StageDial
	}
	return at(s.stage, err, flow.DialFailed)
}

// first is the [flow.Open] of a relay that takes one connection.
func (s *side) first(context.Context) (flow.Conn, error) { return s.conn, nil }

func (s *side) close() {
	switch {
	case s.bare == nil:
	case s.conn == nil:
		s.bare.Close()
	case s.aborted:
		flow.Abort(s.conn)
	default:
		s.conn.Close()
	}
}

func wrap(ctx context.Context, f *flow.Flow, c flow.Conn, layers []flow.Layer, stage flow.Stage) (flow.Conn, error) {
	if len(layers) > 0 {
		f.Progress.Reach(stage)
	}
	for _, layer := range layers {
		err := safely(func() error {
			over, err := layer.Wrap(ctx, f, c)
			if err == nil {
				c = over
			}
			return err
		})
		if err != nil {
			return nil, at(stage, err, flow.Internal)
		}
	}
	return c, nil
}

// at fills the stage of an error, of reason other where it has none of its own.
func at(stage flow.Stage, err error, other flow.Reason) *flow.Error {
	e := *flow.AsError(err, other)
	e.Stage = stage
	return &e
}

// refuse ends a client that we have sent nothing yet: with the reason's alert
// where it has sent a ClientHello, with words where it has sent HTTP. A datagram
// that is no hello gets no answer: its source may be another's address.
func refuse(c flow.Conn, f *flow.Flow, stage flow.Stage, err error) *flow.Error {
	e := at(stage, err, flow.Internal)
	alert, ok := e.Reason.Alert()
	switch {
	case e.Reason == flow.PlainHTTP:
		say(c, []byte(plainHTTP))
	case ok && (f.Hello != nil || stage == flow.StagePeek && c.Transport() == flow.Stream):
		say(c, wire.AlertRecord(f.Hello.RecordVersion(), wire.Alert(alert)))
		e.Alerts.Sent = alert
	case f.Hello == nil && e.Stage >= flow.StageDial:
		// A plain client must not take our failure for the server's proper end.
		flow.Abort(c)
		return e
	}
	farewell(c)
	return e
}

const plainHTTP = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
	"This port speaks TLS. Use https:// in place of http:// to reach it.\n"

func say(c flow.Conn, p []byte) {
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write(p)
}

// farewell lets the client read what it was told. A socket closed with unread
// bytes in it sends a reset, which would overtake an alert (RFC 9293, section
// 3.6.1), so what the client still sends is read, for a bounded time.
func farewell(c flow.Conn) {
	if c.Transport() == flow.Datagram || c.CloseWrite() != nil {
		return
	}
	c.SetReadDeadline(time.Now().Add(time.Second))
	io.CopyN(io.Discard, struct{ io.Reader }{c}, 256<<10)
}
