package preamble

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/netip"

	"sallyport/flow"
)

// Datagram takes the header of version 2 off a datagram from that address. refused
// says why the datagram must go no further; payload shares p's memory.
func (a AcceptProxy) Datagram(from netip.AddrPort, p []byte) (who flow.Announced, payload []byte, refused flow.Reason) {
	must := a.Require || a.Each
	switch trusted := a.trusts(from); {
	case !trusted && must:
		return who, nil, flow.ProxyUntrusted
	case !trusted:
		return who, p, ""
	case !bytes.HasPrefix(p, signature) && a.Each:
		return who, nil, flow.ProxyHeaderMissing
	case !bytes.HasPrefix(p, signature):
		return flow.Announced{Missing: must}, p, ""
	}
	asked, payload, err := takeHeader(p)
	if err != nil {
		return who, nil, flow.ProxyHeaderBad
	}
	return flow.Announced{Client: asked.Client, Local: asked.Local, Each: a.Each}, payload, ""
}

// fixed is how many bytes of a header of version 2 say how many more it has.
const fixed = 16

// takeHeader takes apart a datagram that begins with a header's signature.
func takeHeader(p []byte) (flow.Asked, []byte, error) {
	if len(p) < fixed {
		return flow.Asked{}, nil, io.ErrUnexpectedEOF
	}
	n := int(binary.BigEndian.Uint16(p[fixed-2:]))
	switch {
	case n > maxTLVs:
		return flow.Asked{}, nil, tooLong(n)
	case len(p) < fixed+n:
		return flow.Asked{}, nil, io.ErrUnexpectedEOF
	}
	h, err := parse(p[:fixed+n])
	if err != nil {
		return flow.Asked{}, nil, err
	}
	var f flow.Flow
	err = note(&f, h)
	return f.Asked, p[fixed+n:], err
}
