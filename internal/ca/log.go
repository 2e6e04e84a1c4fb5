package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"
)

// Log signs as a log of Certificate Transparency does (RFC 6962), and keeps
// nothing.
type Log struct {
	Name, Operator string
	Key            crypto.Signer
	Extensions     []byte         // of its SCTs; static-ct-api has the index of the leaf there
	Tiled          bool           // in a list
	State          string         // in a list; usable if empty
	Since          time.Time      // of the state
	JSON           map[string]any // further keys of its entry
}

// NewLog makes a log with a key on P-256.
func NewLog(name, operator string) (*Log, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return &Log{Name: name, Operator: operator, Key: key}, err
}

// TestLog is [NewLog] in a test.
func TestLog(t T, name, operator string) *Log {
	t.Helper()
	l, err := NewLog(name, operator)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// PublicKey is the log's SubjectPublicKeyInfo.
func (l *Log) PublicKey() []byte {
	der, err := x509.MarshalPKIXPublicKey(l.Key.Public())
	if err != nil {
		panic(err) // none of the keys that a log can be given here
	}
	return der
}

// ID is the SHA-256 of the key.
func (l *Log) ID() [32]byte { return sha256.Sum256(l.PublicKey()) }

// SCT promises a finished certificate, as for the handshake or a staple.
func (l *Log) SCT(at time.Time, der []byte) ([]byte, error) { return l.sign(at, 0, nil, der) }

// sign makes a SerializedSCT (RFC 6962, section 3.2).
func (l *Log) sign(at time.Time, kind uint16, issuer, entry []byte) ([]byte, error) {
	var in []byte
	in = append(in, 0, 0)
	in = binary.BigEndian.AppendUint64(in, uint64(at.UnixMilli()))
	in = binary.BigEndian.AppendUint16(in, kind)
	in = append(in, issuer...)
	in = append(in, byte(len(entry)>>16), byte(len(entry)>>8), byte(len(entry)))
	in = append(in, entry...)
	in = prefixed(in, l.Extensions)
	sig, err := sign(l.Key, in, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	id := l.ID()
	out := append([]byte{0}, id[:]...)
	out = binary.BigEndian.AppendUint64(out, uint64(at.UnixMilli()))
	out = prefixed(out, l.Extensions)
	if _, ok := l.Key.(*rsa.PrivateKey); ok {
		out = append(out, 4, 1)
	} else {
		out = append(out, 4, 3)
	}
	return prefixed(out, sig), nil
}

func prefixed(to, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(to, uint16(len(b))), b...)
}

// SCTList is a SignedCertificateTimestampList (RFC 6962, section 3.3).
func SCTList(scts ...[]byte) []byte {
	var list []byte
	for _, s := range scts {
		list = prefixed(list, s)
	}
	return prefixed(nil, list)
}

// Promise is one SCT to be embedded: by a log, of a time.
type Promise struct {
	Log *Log
	At  time.Time
	// Issuer is who the log believes to issue the certificate; nil is who does.
	Issuer *x509.Certificate
	// Tamper changes the SCT.
	Tamper func([]byte) []byte
}

// Embed puts the SCTs of promises into a certificate that issuer issues. The logs
// sign it without them, as they sign the precertificate that a CA shows them.
func Embed(issuer *x509.Certificate, promises ...Promise) Option {
	return TBS(func(t *TBSCertificate) {
		pre, err := asn1.Marshal(*t)
		if err != nil {
			panic(err) // it was a certificate a moment ago
		}
		var scts [][]byte
		for _, p := range promises {
			told := p.Issuer
			if told == nil {
				told = issuer
			}
			hash := sha256.Sum256(told.RawSubjectPublicKeyInfo)
			sct, err := p.Log.sign(p.At, 1, hash[:], pre)
			if err != nil {
				panic(err)
			}
			if p.Tamper != nil {
				sct = p.Tamper(sct)
			}
			scts = append(scts, sct)
		}
		t.Extensions = append(t.Extensions, SCTExtension(SCTList(scts...)))
	})
}

// SCTExtension is the one that has SCTs in a certificate.
func SCTExtension(list []byte) pkix.Extension {
	value, err := asn1.Marshal(list)
	if err != nil {
		panic(err) // of bytes
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// ServerInfo is a file for openssl s_server -serverinfo, which then sends list in
// the handshake: in the ServerHello up to TLS 1.2, beside the certificate from 1.3 on.
func ServerInfo(list []byte) []byte {
	const contexts = 0x0080 | 0x0100 | 0x1000 // SSL_EXT_CLIENT_HELLO, TLS1_2_SERVER_HELLO, TLS1_3_CERTIFICATE
	b := binary.BigEndian.AppendUint32(nil, contexts)
	b = binary.BigEndian.AppendUint16(b, 18) // signed_certificate_timestamp
	return pem.EncodeToMemory(&pem.Block{Type: "SERVERINFOV2 FOR signed_certificate_timestamp", Bytes: prefixed(b, list)})
}

// LogList is a list in JSON, version 3, made at.
func LogList(at time.Time, logs ...*Log) []byte {
	var operators []map[string]any
	known := map[string]int{}
	for _, l := range logs {
		i, ok := known[l.Operator]
		if !ok {
			i = len(operators)
			known[l.Operator] = i
			operators = append(operators, map[string]any{"name": l.Operator, "email": []string{"ct@example.test"}, "logs": []any{}, "tiled_logs": []any{}})
		}
		kind := "logs"
		if l.Tiled {
			kind = "tiled_logs"
		}
		operators[i][kind] = append(operators[i][kind].([]any), l.entry(at))
	}
	text, err := json.MarshalIndent(map[string]any{"version": "1.0", "log_list_timestamp": at, "operators": operators}, "", "  ")
	if err != nil {
		panic(err)
	}
	return text
}

func (l *Log) entry(at time.Time) map[string]any {
	id, state, since := l.ID(), l.State, l.Since
	if state == "" {
		state = "usable"
	}
	if since.IsZero() {
		since = at.Add(-100 * 24 * time.Hour)
	}
	e := map[string]any{
		"description": l.Name, "log_id": id[:], "key": l.PublicKey(), "mmd": 86400,
		"state": map[string]any{state: map[string]any{"timestamp": since}},
	}
	if l.Tiled {
		e["submission_url"], e["monitoring_url"] = "https://log.test/submit", "https://log.test/tiles"
	} else {
		e["url"] = "https://log.test/ct"
	}
	for k, v := range l.JSON {
		e[k] = v
	}
	return e
}

// OpenSSLLogs is a file for openssl's -ctlogfile.
func OpenSSLLogs(logs ...*Log) []byte {
	var names, sections strings.Builder
	for i, l := range logs {
		fmt.Fprintf(&names, ",log%d", i)
		fmt.Fprintf(&sections, "[log%d]\ndescription = %s\nkey = %s\n", i, l.Name, base64.StdEncoding.EncodeToString(l.PublicKey()))
	}
	return []byte("enabled_logs = " + strings.TrimPrefix(names.String(), ",") + "\n" + sections.String())
}
