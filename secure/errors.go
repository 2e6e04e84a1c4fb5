package secure

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"time"

	"sallyport/flow"
	"sallyport/record"
	"sallyport/verify"
	"sallyport/wire"
)

// role holds the reasons of one side: the same fault is the client's towards
// clients and the server's towards servers.
type role struct {
	peer                                                    string
	notTLS, gone, timeout, handshake, alert, leaf, protocol flow.Reason
	texts, dtlsTexts                                        []told
}

var (
	inbound = role{
		peer: "client", notTLS: flow.NotTLS, gone: flow.ClientGone, timeout: flow.ClientTimeout, handshake: flow.ClientHandshake,
		alert: flow.ClientAlert, leaf: flow.ClientRejectedLeaf, protocol: flow.ClientProtocol,
		texts: clientTexts, dtlsTexts: dtlsClientTexts,
	}
	outbound = role{
		peer: "server", notTLS: flow.ServerNotTLS, gone: flow.ServerGone, timeout: flow.ServerTimeout, handshake: flow.ServerHandshake,
		alert: flow.ServerAlert, leaf: flow.ServerRejectedCert, protocol: flow.ServerProtocol,
		texts: serverTexts, dtlsTexts: dtlsServerTexts,
	}
)

// handshakeError says what an error of crypto/tls's Handshake means.
func (r *role) handshakeError(err error, u *under) error {
	var known *flow.Error
	var header tls.RecordHeaderError
	var native *tls.CertificateVerificationError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &native):
		return nativeError(native)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return flow.Fail(r.timeout, "the %s did not finish the TLS handshake in time", r.peer)
	case u.alert != 0:
		return r.alertError(u.alert)
	case errors.As(err, &header):
		return flow.Fail(r.notTLS, "the %s does not speak TLS on this port: it sent %q", r.peer, header.RecordHeader[:])
	case u.eof, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return flow.Fail(r.gone, "the %s closed the connection during the TLS handshake", r.peer)
	}
	if alert, ok := remoteAlert(err); ok {
		return r.alertError(alert)
	}
	for _, known := range r.texts {
		if strings.Contains(err.Error(), known.text) {
			return flow.Fail(known.reason, "TLS handshake with the %s: %w", r.peer, err)
		}
	}
	return flow.Fail(r.handshake, "TLS handshake with the %s: %w", r.peer, err)
}

// told is an error that crypto/tls gives as text alone. Tests against real peers
// fail where a newer Go words one otherwise.
type told struct {
	text   string
	reason flow.Reason
}

var clientTexts = []told{
	{"client didn't provide a certificate", flow.ClientCertMissing},
	{"no cipher suite supported by both client and server", flow.NoSharedCipher},
	{"no key exchanges supported by both client and server", flow.NoSharedCipher},
	{"no ECDHE curve supported by both client and server", flow.NoSharedCipher},
	{"peer doesn't support any of the certificate's signature algorithms", flow.NoSharedCipher},
	{"client offered only unsupported versions", flow.VersionUnsupported},
	{"client requested unsupported application protocols", flow.NoApplicationProto},
	{"client using inappropriate protocol fallback", flow.VersionUnsupported},
	{"failed to parse client certificate", flow.ClientCertRejected},
	{"client sent certificate containing RSA key larger than", flow.ClientCertRejected},
	{"client certificate contains an unsupported public key", flow.ClientCertRejected},
	{"exceeds maximum of 262144 bytes", flow.ClientCertRejected}, // maxHandshakeCertificateMsg
}

// serverTexts are about certificates that crypto/tls refuses before anybody else
// sees them.
var serverTexts = []told{
	{"x509: unsupported elliptic curve", flow.WeakKey},
	{"server sent certificate containing RSA key larger than", flow.WeakKey},
	{"server's certificate contains an unsupported type of public key", flow.WeakKey},
	{"failed to parse certificate from server", flow.CertInvalid},
	{"exceeds maximum of 262144 bytes", flow.CertInvalid}, // maxHandshakeCertificateMsg
}

// alertError says what the peer's alert means. Those about a certificate speak
// of ours (RFC 8446, section 6.2).
func (r *role) alertError(a wire.Alert) error {
	switch a {
	case 42, 43, 44, 45, 46, 48, 49, 113, 116:
		return received(a, flow.Fail(r.leaf, "the %s refused our certificate: alert %d, %s", r.peer, uint8(a), a))
	}
	return received(a, flow.Fail(r.alert, "the %s ended TLS by alert %d, %s", r.peer, uint8(a), a))
}

func received(a wire.Alert, e *flow.Error) *flow.Error {
	e.Alerts.Received = uint8(a)
	return e
}

// relayError says what an error after the handshake means; the system's errors
// are the relay's to judge.
func (r *role) relayError(err error) error {
	if alert, ok := remoteAlert(err); ok {
		return r.alertError(alert)
	}
	var alert record.RemoteAlert
	if errors.As(err, &alert) {
		return r.alertError(wire.Alert(alert))
	}
	var system syscall.Errno
	if errors.As(err, &system) || errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return flow.Fail(r.protocol, "TLS with the %s: %w", r.peer, err)
}

// remoteAlert finds the peer's alert. crypto/tls gives it as a *net.OpError with
// an unexported error whose kind is the alert's number.
func remoteAlert(err error) (wire.Alert, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" || op.Err == nil {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return wire.Alert(v.Uint()), true
}

// nativeError says what crypto/tls found wrong with a client's chain.
func nativeError(err *tls.CertificateVerificationError) error {
	reason, code := flow.ClientCertRejected, verify.Invalid
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err.Err, &unknown):
		reason, code = flow.ClientCertUnknownCA, verify.UnknownCA
	case errors.As(err.Err, &invalid) && invalid.Reason == x509.Expired:
		reason, code = flow.ClientCertExpired, verify.Expired
	}
	subject := ""
	if len(err.UnverifiedCertificates) > 0 {
		leaf := err.UnverifiedCertificates[0]
		subject = fmt.Sprintf(" %q (issued by %q)", leaf.Subject.String(), leaf.Issuer.String())
	}
	e := flow.Fail(reason, "the client's certificate%s: %w", subject, err.Err)
	e.Refusal = &flow.Refusal{Inbound: true, Verifier: "pkix", Reason: string(code)}
	return e
}

// clientRefused maps a verdict on a client's certificate, which took so long.
func clientRefused(err error, took time.Duration) error {
	reason := flow.ClientCertRejected
	var v *verify.Error
	if errors.As(err, &v) {
		switch v.Reason {
		case verify.Expired, verify.NotYetValid:
			reason = flow.ClientCertExpired
		case verify.UnknownCA:
			reason = flow.ClientCertUnknownCA
		case verify.NotAllowed:
			reason = flow.ClientNotAllowed
		case verify.RevokedCert:
			reason = flow.ClientCertRevoked
		case verify.Missing:
			reason = flow.ClientCertMissing
		}
	}
	e := flow.Fail(reason, "the client's certificate: %w", err)
	e.Refusal = refusal(v, took)
	e.Refusal.Inbound = true
	return e
}

// serverRefused maps a verdict on a server's certificate: verify's codes are
// the log's.
func serverRefused(err error, took time.Duration) error {
	reason := flow.CertInvalid
	var v *verify.Error
	if errors.As(err, &v) {
		reason = flow.Reason(v.Reason)
	}
	e := flow.Fail(reason, "the server's certificate: %w", err)
	e.Refusal = refusal(v, took)
	return e
}

// refusal is what v says; nil is of a verdict that did not come.
func refusal(v *verify.Error, took time.Duration) *flow.Refusal {
	if v == nil {
		return &flow.Refusal{Reason: "unfinished", Took: took}
	}
	return &flow.Refusal{Verifier: v.By, Reason: string(v.Reason), Took: took}
}
