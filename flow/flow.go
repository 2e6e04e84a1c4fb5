package flow

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"sallyport/wire"
)

// Direction of bytes through a flow.
type Direction uint8

const (
	Up   Direction = iota // from the client to the server
	Down                  // from the server to the client
)

// Flow is one client connection or association, end to end. Each field is
// written by one stage, named behind it, and read by later ones.
type Flow struct {
	ID       uint64      // accept
	Start    time.Time   // accept
	Origin   Origin      // accept
	Asked    Asked       // preamble
	Hello    *wire.Hello // peek; nil if it was not TLS; with ECH the inner one
	Outer    *wire.Hello // peek; what stood on the wire when Hello is an inner one
	Print    Print       // peek
	Peeked   time.Duration
	Decision *Decision // decide
	Dialled  Dialled   // dial
	Inbound  []Session // inbound; one a layer, outermost first
	Outbound []Session // outbound
	Sent     [2]int64  // relay; payload bytes by Direction
	TooLarge [2]int64  // relay; datagrams lost since the other end could not carry them whole
	Discards [2]int64  // relay; records that a layer threw away, by the Direction that they would have gone
	Progress *Progress // accept; the engine's, shared with who watches
}

// Origin is where a flow came from.
type Origin struct {
	Listener  string
	Transport Transport
	Client    netip.AddrPort // zero for a unix socket
	Local     netip.AddrPort // the address that the client reached
}

// Print are the fingerprints of the ClientHello that stood on the wire. They are
// taken at once, so that a flow need not keep the hello, whose size a stranger
// chooses.
type Print struct{ JA3, JA4 string }

// Asked is where the client asked to go, in a preamble, and of a PROXY header that
// is trusted whom it names; the zero values where nothing was said.
type Asked struct {
	Host   string
	Port   uint16
	Client netip.AddrPort
	Local  netip.AddrPort // which address of the proxy before us Client has reached
}

// Announced is what stands ahead of a datagram in a PROXY header that is believed.
type Announced struct {
	Client, Local netip.AddrPort // as in [Asked]; zero: the sender speaks for itself
	Missing       bool           // no header stands where one has to: no association may begin with the datagram
	Each          bool           // the association is Client's alone, beside others of the sender's address
}

// Header takes off a datagram from that address what precedes its payload. refused
// says why it must go no further. payload shares p's memory.
type Header func(from netip.AddrPort, p []byte) (who Announced, payload []byte, refused Reason)

// Client is who is served: whom a trusted PROXY header names, else where the
// connection comes from. It is zero for a unix socket.
func (f *Flow) Client() netip.AddrPort {
	if f.Asked.Client.IsValid() {
		return f.Asked.Client
	}
	return f.Origin.Client
}

// Reached is the address that Client has reached.
func (f *Flow) Reached() netip.AddrPort {
	if f.Asked.Client.IsValid() {
		return f.Asked.Local
	}
	return f.Origin.Local
}

// Dialled is the server's end of the bare outbound connection.
type Dialled struct {
	Server string // as configured: which one of several
	Addr   string
	Took   time.Duration
	Layer  Layer // towards this very server, where several have layers of their own
}

// Session is what one layer learned in its handshake.
type Session struct {
	Proto, SNI, ALPN      string
	Version, Suite, Group uint16
	Resumed, ECH          bool
	Chain                 []*x509.Certificate // as presented, not verified
	Peer                  *Peer               // nil where nobody was verified
	PSK                   string              // the identity whose pre-shared key both ends have shown; empty if none
	Took                  time.Duration
	Verified              time.Duration // how much of it went into verifying Peer
}

// Peer is who the other end of a session was verified to be.
type Peer struct {
	Names []string
	SPKI  [32]byte // SHA-256 of the leaf's SubjectPublicKeyInfo
	By    []string // the authenticators and checks that passed
	Notes []string // what another policy would have refused it for

	StapleAge *time.Duration // of the OCSP response that it stapled; nil where none counted
	CTLogs    []string       // whose SCTs of the leaf count, by the names that the list has
}

// Action is what becomes of a flow. Reject is the zero value.
type Action uint8

const (
	Reject Action = iota
	Splice
	Terminate
)

// Timeouts of one flow; zero means none.
type Timeouts struct {
	Peek, Handshake, Dial, Idle, Linger, Total, Drain time.Duration
}

// Decision is what a route does with a flow. It is built at load, shared by
// flows and never changed.
type Decision struct {
	Route     string
	Pattern   string // the docs' word for this pair of ends; for the record only
	Action    Action
	Reason    Reason // of a Reject
	Err       error  // of a Reject, what failed; nil where its Reason says all
	Inbound   []Layer
	Upstream  Dialer
	Outbound  []Layer
	DialFirst bool // the server's side stands before the client's handshake
	Relay     Relayer
	Filters   []func(*Flow) Filter
	Taps      []func(*Flow) Tap
	Timeouts  Timeouts
}

// Decider finds the Decision for a flow. It is pure: no I/O, no clock.
type Decider interface{ Decide(f *Flow) *Decision }

// Open dials and wraps the server's side. Its first call yields the connection
// dialled already, or its error; an HTTP relay calls it again.
type Open func(context.Context) (Conn, error)

// Relayer moves what passes between the two ends until both are done.
type Relayer interface {
	Relay(ctx context.Context, f *Flow, client Conn, open Open) error
}

// Filter may change or refuse what passes. One Filter serves one flow.
type Filter interface {
	Filter(ctx context.Context, d Direction, p []byte) ([]byte, error)
	End(ctx context.Context, d Direction) ([]byte, error)
}

// Tap sees what passes, changes nothing and never blocks. p is valid only during the call.
type Tap interface {
	Tap(at time.Time, d Direction, p []byte)
	End(d Direction, err error)
	Close() error
}

// Observer is told of each flow's begin and end. End comes exactly once a flow,
// with nil where the flow ended well.
type Observer interface {
	Begin(*Flow)
	End(*Flow, *Error)
}
