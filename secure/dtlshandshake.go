package secure

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/protocol/alert"
	"github.com/pion/logging"

	"sallyport/flow"
	"sallyport/wire"
)

// dtlsHandshake is what one Wrap keeps while the DTLS engine works.
type dtlsHandshake struct {
	handshake
	under    *datagrams
	engine   *dtls.Conn
	ear      ear
	sessions *resumable // nil: none is resumed
}

func (h *dtlsHandshake) afterCookie(c flow.Conn, timeout time.Duration) error {
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	var err error
	if h.under, err = afterCookie(c, deadline); err != nil {
		return h.role.dtlsError(err, h)
	}
	return nil
}

// options are those that either role has anew for each handshake.
func (h *dtlsHandshake) options() []dtls.ServerOption {
	list := []dtls.ServerOption{dtls.WithLoggerFactory(&h.ear)}
	if h.sessions != nil {
		list = append(list, dtls.WithSessionStore(h.sessions))
	}
	return list
}

// run makes the handshake within timeout.
func (h *dtlsHandshake) run(ctx context.Context, t *dtls.Conn, timeout time.Duration) error {
	h.engine, h.under.engine = t, t
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	h.under.until = ctx.Done()
	err := t.HandshakeContext(ctx)
	close(h.under.settled)
	if err == nil {
		return nil
	}
	known := h.role.dtlsError(err, h)
	// A verdict that came too late is one, of which the engine has sent the alert.
	if late := ctx.Err(); h.role == &outbound && late != nil && errors.Is(err, late) && !errors.As(err, new(*flow.Error)) {
		defer h.giveUp(known)
	}
	return h.end(known)
}

// giveUp tells a server that is not waited for any longer, which the engine does not.
// It would keep its half of the handshake, and send its flight again and again: also
// to who has our port next, who would take it for an answer to a handshake of its own.
// A client is told nothing: it is to learn of no identity whether we know it.
func (h *dtlsHandshake) giveUp(why error) {
	var known *flow.Error
	if !errors.As(why, &known) || known.Alerts.Received != 0 {
		return
	}
	h.under.Conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := h.under.Conn.Write(wire.AlertRecord(wire.VersionDTLS12, wire.AlertUserCanceled)); err == nil {
		known.Alerts.Sent = uint8(wire.AlertUserCanceled)
	}
}

// end stops the engine and gives the connection below back to its owner, with err.
func (h *dtlsHandshake) end(err error) error {
	h.engine.Close()
	h.under.Conn.SetReadDeadline(time.Time{})
	return err
}

// session is what the handshake has agreed on.
func (h *dtlsHandshake) session(start time.Time) (flow.Session, tls.ConnectionState, error) {
	st, ok := h.engine.ConnectionState()
	if !ok {
		return flow.Session{}, tls.ConnectionState{}, flow.Fail(flow.Internal, "the DTLS engine does not know its own state")
	}
	cs, err := h.state(&st)
	if err != nil {
		return flow.Session{}, cs, flow.Fail(h.role.handshake, "the %s's certificate: %w", h.role.peer, err)
	}
	cs.DidResume = h.sessions.resumed(st.SessionID)
	s := flow.Session{
		Proto: "dtls", ALPN: cs.NegotiatedProtocol,
		Version: cs.Version, Suite: cs.CipherSuite, Group: h.group(cs),
		Resumed: cs.DidResume,
		Chain:   cs.PeerCertificates, Peer: h.peer(), Took: time.Since(start), Verified: h.verified,
	}
	if isPSK(cs.CipherSuite) {
		s.PSK = h.psk
	}
	return s, cs, nil
}

// state is the engine's in the words of crypto/tls.
func (h *dtlsHandshake) state(st *dtls.State) (tls.ConnectionState, error) {
	cs := tls.ConnectionState{
		Version: wire.VersionDTLS12, CipherSuite: uint16(st.CipherSuiteID),
		NegotiatedProtocol: st.NegotiatedProtocol, ServerName: h.under.hello.SNI,
		DidResume: h.sessions.resumed(st.SessionID),
	}
	for _, der := range st.PeerCertificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return cs, err
		}
		cs.PeerCertificates = append(cs.PeerCertificates, c)
	}
	return cs, nil
}

// group is the one that keys were exchanged in, 0 where none was or it is not known:
// the engine does not tell.
func (h *dtlsHandshake) group(cs tls.ConnectionState) uint16 {
	state := fieldOf(h.engine, "state")
	if cs.DidResume || !state.IsValid() || !strings.Contains(dtls.CipherSuiteName(dtls.CipherSuiteID(cs.CipherSuite)), "ECDHE") {
		return 0
	}
	if f := state.FieldByName("namedCurve"); f.IsValid() && f.Kind() == reflect.Uint16 {
		return uint16(f.Uint())
	}
	return 0
}

// carryOn gives the connection after its handshake. repeats says that ours was the
// last flight.
func (h *dtlsHandshake) carryOn(cs tls.ConnectionState, repeats bool) flow.Conn {
	h.under.established(repeats)
	c := &dtlsConn{engine: h.engine, under: h.under, role: h.role, ear: &h.ear, early: h.ear.discarded.Load()}
	s, _ := suiteOf(cs.CipherSuite)
	c.most = min(maxDatagram, engineBuffer-s.overhead)
	if id := h.peerID(); id > 0 {
		c.most = min(c.most, engineBuffer-s.overhead-id-1)
	}
	return c
}

// peerID is the length of the connection ID that the peer asked for.
func (h *dtlsHandshake) peerID() int {
	if state := fieldOf(h.engine, "state"); state.IsValid() {
		if f := state.FieldByName("remoteConnectionID"); f.IsValid() && f.Type() == bytesType {
			return f.Len()
		}
	}
	return 0
}

var bytesType = reflect.TypeFor[[]byte]()

// fieldOf is a field of the engine's that it does not export; the zero Value if
// there is none. Its memory can be read, and that of a slice written.
func fieldOf(engine *dtls.Conn, name string) reflect.Value {
	f := reflect.ValueOf(engine).Elem().FieldByName(name)
	if f.IsValid() && f.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return f
}

// dtlsError says what an error of the engine's handshake means.
func (r *role) dtlsError(err error, h *dtlsHandshake) error {
	if errors.Is(err, net.ErrClosed) && h.under != nil {
		if why := h.under.why(); why != nil {
			err = why
		}
	}
	var known *flow.Error
	if errors.As(err, &known) {
		return known
	}
	if a, ok := dtlsAlert(err); ok {
		switch {
		case (a == handshakeFailure || a == noCertificate) && h.asked:
			return flow.Fail(flow.ServerRejectedCert, "the server asks for a certificate of ours, and there is no to.cert: alert %d, %s", uint8(a), a)
		case h.psk != "" && r == &outbound && (a == wire.AlertUnknownPSKIdentity || a == wire.AlertDecryptError || a == wire.AlertBadRecordMAC || a == wire.AlertHandshakeFailure):
			return flow.Fail(flow.ServerRejectedPSK, "the server does not take our pre-shared key of identity %.64q: alert %d, %s", h.psk, uint8(a), a)
		}
		return r.alertError(a)
	}
	switch {
	case errors.Is(err, errUnfit):
		return flow.Fail(flow.Internal, "%w", errUnfit)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return r.lateError(h)
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, syscall.ECONNREFUSED):
		return flow.Fail(r.gone, "the %s was gone before the DTLS handshake was done", r.peer)
	}
	for _, known := range r.dtlsTexts {
		if strings.Contains(err.Error(), known.text) {
			return flow.Fail(known.reason, "DTLS handshake with the %s: %w", r.peer, err)
		}
	}
	return flow.Fail(r.handshake, "DTLS handshake with the %s: %w", r.peer, err)
}

// noCertificate is of SSL 3.0, and reserved since (RFC 5246, section 7.2); the engine
// sends it all the same.
const noCertificate = 41

// lateError tells why a handshake may not have been finished in time. With another
// key the peer's Finished is a record that cannot be read, and such are not answered
// (RFC 6347, section 4.1.2.7): both ends wait.
func (r *role) lateError(h *dtlsHandshake) error {
	switch {
	case h.psk != "" && r == &outbound:
		return flow.Fail(flow.ServerTimeout, "the server did not finish the DTLS handshake in time, as it does not where it has another pre-shared key for identity %.64q", h.psk)
	case h.unknown:
		return flow.Fail(flow.PSKUnknown, "there is no pre-shared key for the identity %.64q that the client named", h.psk)
	case h.psk != "" && h.ear.undecrypted.Load() > 0:
		return flow.Fail(flow.PSKMismatch, "the client has another pre-shared key than ours for identity %.64q", h.psk)
	}
	if h.under != nil {
		switch a, heard, _ := h.under.rumour.last(); {
		case h.under.spent.Load():
			return flow.Fail(r.handshake, "the %s sent more than %d KiB, and did not finish the DTLS handshake in time", r.peer, mostHandshake>>10)
		case heard:
			return r.alertError(a)
		}
	}
	return flow.Fail(r.timeout, "the %s did not finish the DTLS handshake in time", r.peer)
}

// dtlsClientTexts and dtlsServerTexts tell apart errors that the engine gives as
// text alone. Tests against real peers fail where another version words them otherwise.
var (
	dtlsClientTexts = []told{
		{"server required client verification, but got none", flow.ClientCertMissing},
		{"client+server do not support any shared cipher suites", flow.NoSharedCipher},
		{"client requested zero or more elliptic curves that are not supported by the server", flow.NoSharedCipher},
		{"unsupported protocol version", flow.VersionUnsupported},
		{"handshake error: x509: ", flow.ClientCertRejected}, // it does not parse
	}
	dtlsServerTexts = []told{
		{"x509: unsupported elliptic curve", flow.WeakKey},
		{"handshake error: x509: ", flow.CertInvalid},
	}
)

// dtlsRelayError says what an error after the handshake means; the system's errors
// are the relay's to judge.
func (r *role) dtlsRelayError(err error) error {
	var system syscall.Errno
	if errors.As(err, &system) || errors.Is(err, net.ErrClosed) {
		return err
	}
	return flow.Fail(r.protocol, "DTLS with the %s: %w", r.peer, err)
}

// keyLog writes a server's key log. Its lines go by the client's random (RFC 9850,
// section 3), but the engine puts its own where a session is taken up again.
type keyLog struct {
	to     io.Writer
	random [32]byte
}

func (k *keyLog) Write(line []byte) (int, error) {
	const label = "CLIENT_RANDOM "
	named := bytes.Clone(line)
	if bytes.HasPrefix(line, []byte(label)) && len(line) > len(label)+hex.EncodedLen(len(k.random)) {
		hex.Encode(named[len(label):], k.random[:])
	}
	return k.to.Write(named)
}

// dtlsAlert finds the peer's alert. The engine gives it as an unexported error with
// the alert in it.
func dtlsAlert(err error) (wire.Alert, bool) {
	for ; err != nil; err = errors.Unwrap(err) {
		v := reflect.Indirect(reflect.ValueOf(err))
		if v.Kind() != reflect.Struct {
			continue
		}
		if f := v.FieldByName("Alert"); f.IsValid() && f.CanInterface() {
			if a, ok := f.Interface().(*alert.Alert); ok && a != nil {
				return wire.Alert(a.Description), true
			}
		}
	}
	return 0, false
}

// ear is the engine's log, of which nothing is written anywhere. It hears what the
// engine tells nobody else: the alert that has ended a connection, and whether there
// were records that did not decrypt.
type ear struct {
	goodbye     atomic.Bool   // close_notify came
	fatal       atomic.Uint32 // the alert's number, plus one
	undecrypted atomic.Uint32
	discarded   atomic.Int64 // records that did not decrypt, or had come before
}

func (e *ear) NewLogger(string) logging.LeveledLogger { return e }

func (e *ear) Tracef(format string, args ...any) {
	if format != "%s: <- %s" || len(args) != 2 {
		return
	}
	text, _ := args[1].(string)
	if !strings.HasPrefix(text, "Alert ") {
		return
	}
	for n := range 256 {
		switch a := (alert.Alert{Level: alert.Fatal, Description: alert.Description(n)}); {
		case n == 0 && strings.HasSuffix(text, a.Description.String()):
			e.goodbye.Store(true)
			return
		case text == a.String():
			e.fatal.Store(uint32(n) + 1)
			return
		}
	}
}

func (e *ear) Debugf(format string, _ ...any) {
	switch {
	case format == "%s: decrypt failed: %s":
		e.undecrypted.Add(1)
		e.discarded.Add(1)
	case strings.HasPrefix(format, "discarded"):
		e.discarded.Add(1)
	}
}

func (e *ear) Debug(text string) {
	if strings.HasPrefix(text, "discarded") {
		e.discarded.Add(1)
	}
}

func (*ear) Trace(string)          {}
func (*ear) Info(string)           {}
func (*ear) Infof(string, ...any)  {}
func (*ear) Warn(string)           {}
func (*ear) Warnf(string, ...any)  {}
func (*ear) Error(string)          {}
func (*ear) Errorf(string, ...any) {}
