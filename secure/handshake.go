package secure

import (
	"context"
	"crypto/tls"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/credential"
	"sallyport/flow"
	"sallyport/verify"
	"sallyport/wire"
)

// handshake is what one Wrap keeps while crypto/tls works.
type handshake struct {
	flow *flow.Flow
	role *role
	// id is set by VerifyConnection, which a TLS 1.3 server calls before it has
	// checked CertificateVerify: it says nothing until the handshake returns.
	id *verify.Identity
	// verified is how long verifying took: whose session is resumed is verified twice.
	verified time.Duration
	// asked says that the server has asked for a certificate, and we have none.
	asked bool
	// resumes says that crypto/tls keeps the server's tickets.
	resumes bool
	// psk is the identity that the client has named, unknown if we have no key for it.
	psk     string
	unknown bool
}

const handshakeFailure = 40 // RFC 8446, section 6.2

// run makes the handshake within timeout.
func (h *handshake) run(t *tls.Conn, u *under, timeout time.Duration) error {
	if timeout > 0 {
		u.SetDeadline(time.Now().Add(timeout))
	}
	if err := t.Handshake(); err != nil {
		// All that TLS 1.2 has to say so (RFC 5246, section 7.4.6).
		if a, ok := remoteAlert(err); ok && a == handshakeFailure && h.asked {
			return received(a, flow.Fail(flow.ServerRejectedCert, "the server asks for a certificate of ours, and there is no to.cert: alert %d, %s", uint8(a), a))
		}
		return h.role.handshakeError(err, u)
	}
	if timeout > 0 {
		u.SetDeadline(time.Time{})
	}
	return nil
}

// session is what the handshake has agreed on.
func (h *handshake) session(t *tls.Conn, start time.Time) (flow.Session, tls.ConnectionState) {
	cs := t.ConnectionState()
	s := flow.Session{
		Proto: "tls", ALPN: cs.NegotiatedProtocol,
		Version: cs.Version, Suite: cs.CipherSuite, Group: uint16(cs.CurveID),
		Resumed: cs.DidResume, ECH: cs.ECHAccepted,
		Chain: cs.PeerCertificates, Took: time.Since(start), Verified: h.verified,
	}
	s.Peer = h.peer()
	return s, cs
}

// peer is who was verified; it is asked for after the handshake.
func (h *handshake) peer() *flow.Peer {
	if h.id == nil {
		return nil
	}
	p := &flow.Peer{Names: h.id.Names(), SPKI: h.id.SPKI(), By: h.id.By(), StapleAge: h.id.StapleAge(), CTLogs: h.id.Logs()}
	for _, n := range h.id.Notes() {
		p.Notes = append(p.Notes, n.String())
	}
	return p
}

func presented(role verify.Role, f *flow.Flow, cs tls.ConnectionState, now time.Time) *verify.Presented {
	return &verify.Presented{
		Role: role, Transport: f.Origin.Transport.String(),
		Chain: cs.PeerCertificates, Staple: cs.OCSPResponse, SCTs: cs.SignedCertificateTimestamps,
		SNI: cs.ServerName, ALPN: cs.NegotiatedProtocol, Remote: f.Client(),
		Version: cs.Version, Suite: cs.CipherSuite, Resumed: cs.DidResume,
		Now: now,
	}
}

// refuse sends an alert in clear, before crypto/tls has begun.
func refuse(c flow.Conn, f *flow.Flow, e *flow.Error) {
	alert, ok := e.Reason.Alert()
	if !ok || f.Hello == nil {
		return
	}
	c.SetWriteDeadline(time.Now().Add(time.Second))
	c.Write(wire.AlertRecord(f.Hello.RecordVersion(), wire.Alert(alert)))
	e.Alerts.Sent = alert
}

// certificates keeps what crypto/tls wants of each credential: one a leaf, since with
// another staple comes another credential.
type certificates struct {
	known sync.Map // the leaf's *x509.Certificate to certificate
	count atomic.Int64
}

type certificate struct {
	of  *credential.Credential
	tls *tls.Certificate
}

// maxCertificates bounds what is kept of credentials that were replaced meanwhile.
const maxCertificates = 1024

func (k *certificates) get(ctx context.Context, from credential.Source, r *credential.Request) (*tls.Certificate, error) {
	c, err := from.Credential(ctx, r)
	if err != nil {
		return nil, flow.Fail(flow.NoCredential, "choosing our certificate: %w", err)
	}
	if known, ok := k.known.Load(c.Chain[0]); ok && known.(certificate).of == c {
		return known.(certificate).tls, nil
	}
	t := &tls.Certificate{PrivateKey: c.Key, Leaf: c.Chain[0], OCSPStaple: c.Staple, SignedCertificateTimestamps: c.SCTs}
	for _, cert := range c.Chain {
		t.Certificate = append(t.Certificate, cert.Raw)
	}
	if k.count.Add(1) > maxCertificates {
		k.known.Clear()
		k.count.Store(1)
	}
	k.known.Store(c.Chain[0], certificate{c, t})
	return t, nil
}

// schemes are the signatures that the client can verify from us. Up to TLS 1.2
// the cipher suite names the kind of key as well (RFC 5246, section 7.4.2), and
// before 1.2 a client does not list schemes at all.
func schemes(chi *tls.ClientHelloInfo, p Params) []tls.SignatureScheme {
	for _, v := range chi.SupportedVersions {
		if v == tls.VersionTLS13 && p.Max >= tls.VersionTLS13 {
			return chi.SignatureSchemes
		}
	}
	offered := chi.SignatureSchemes
	if len(offered) == 0 {
		offered = []tls.SignatureScheme{tls.ECDSAWithSHA1, tls.PKCS1WithSHA1}
	}
	ecdsa, rsa := suiteKinds(chi.CipherSuites, p.Suites)
	var list []tls.SignatureScheme
	for _, s := range offered {
		switch s {
		case tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.ECDSAWithSHA1, tls.Ed25519:
			if ecdsa {
				list = append(list, s)
			}
		default:
			if rsa {
				list = append(list, s)
			}
		}
	}
	if list == nil {
		list = []tls.SignatureScheme{} // nil would mean any
	}
	return list
}

func suiteKinds(offered, ours []uint16) (ecdsa, rsa bool) {
	for _, id := range offered {
		if !slices.Contains(ours, id) {
			continue
		}
		if strings.Contains(tls.CipherSuiteName(id), "_ECDSA_") {
			ecdsa = true
		} else {
			rsa = true
		}
	}
	return ecdsa, rsa
}

func meet(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
}

func overlaps(versions []uint16, low, high uint16) bool {
	return slices.ContainsFunc(versions, func(v uint16) bool { return v >= low && v <= high })
}

func versions(list []uint16) string {
	var names []string
	for _, v := range list {
		names = append(names, wire.VersionName(v))
	}
	return strings.Join(names, ", ")
}
