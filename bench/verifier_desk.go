package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// desk answers what verifiers look up, on loopback and in this process, whose CPU is
// not counted: OCSP, and DNS as from a resolver that has validated.
type desk struct {
	http, dns string // addresses
	leaf      *x509.Certificate
	asked     atomic.Int64

	web   net.Listener
	names net.PacketConn
}

func newDesk() (*desk, error) {
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	names, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		closing(web)
		return nil, err
	}
	return &desk{http: web.Addr().String(), dns: names.LocalAddr().String(), web: web, names: names}, nil
}

// serve gives one OCSP response to whoever asks, and the records of the leaf.
func (d *desk) serve(ocsp []byte) {
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		d.asked.Add(1)
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(ocsp) // who has gone is not waited for
	})}
	go func() { _ = s.Serve(d.web) }() // ends with the listener
	go d.serveNames()
}

func (d *desk) stop() {
	closing(d.web)
	closing(d.names)
}

func (d *desk) serveNames() {
	buf := make([]byte, 1500)
	for {
		n, from, err := d.names.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := d.reply(buf[:n]); reply != nil {
			d.asked.Add(1)
			_, _ = d.names.WriteTo(reply, from)
		}
	}
}

const (
	typeA    = 1
	typeTLSA = 52
)

// reply is a response (RFC 1035, section 4) with the one record of the type, or with
// none; nil for what is no question.
func (d *desk) reply(query []byte) []byte {
	name, end := dnsName(query)
	if end+4 > len(query) {
		return nil
	}
	var data []byte
	switch binary.BigEndian.Uint16(query[end:]) {
	case typeA:
		data = []byte{127, 0, 0, 1}
	case typeTLSA:
		key := sha256.Sum256(d.leaf.RawSubjectPublicKeyInfo)
		usage := byte(1)
		if strings.HasSuffix(name, "."+eeName) {
			usage = 3
		}
		data = append([]byte{usage, 1, 1}, key[:]...)
	}
	r := append([]byte{}, query[:2]...)
	r = append(r, 0x81, 0xa0, 0, 1, 0, byte(min(len(data), 1)), 0, 0, 0, 0) // QR RD, RA AD
	r = append(r, query[12:end+4]...)
	if data == nil {
		return r
	}
	r = append(r, 0xc0, 12)               // the name asked for
	r = append(r, query[end:end+4]...)    // type and class
	r = append(r, 0, 0, 0x0e, 0x10, 0, 0) // an hour; the length comes here
	binary.BigEndian.PutUint16(r[len(r)-2:], uint16(len(data)))
	return append(r, data...)
}

// dnsName is the name of a message's question, without a final dot, and where it
// ends; past the message where it does not.
func dnsName(m []byte) (name string, end int) {
	var labels []string
	for i := 12; i < len(m); {
		n := int(m[i])
		if n == 0 {
			return strings.Join(labels, "."), i + 1
		}
		if i+1+n > len(m) {
			break
		}
		labels = append(labels, string(m[i+1:i+1+n]))
		i += 1 + n
	}
	return "", len(m)
}
