package preamble

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"

	"sallyport/flow"
	"sallyport/wire"
)

// AcceptProxy is the inbound layer that reads a PROXY header, version 1 or 2. Of a
// client that Trust does not list, nothing is read: whatever it sends is payload.
type AcceptProxy struct {
	Trust   []netip.Prefix
	Require bool          // a client without a header is refused, also one that is not trusted
	Each    bool          // of datagrams: every one has a header, and each client an association of its own
	Timeout time.Duration // for the whole header; 0 is none
}

var _ flow.Layer = AcceptProxy{}

// Wrap notes in f.Asked whom the header names. It takes no byte beyond the header,
// so that the connection stays as it is.
func (a AcceptProxy) Wrap(_ context.Context, f *flow.Flow, c flow.Conn) (flow.Conn, error) {
	if !a.trusts(f.Origin.Client) {
		if a.Require {
			return nil, flow.Fail(flow.ProxyUntrusted, "%s may not say whom it speaks for: proxy_trust does not list it", f.Origin.Client.Addr())
		}
		return c, nil
	}
	if a.Timeout > 0 {
		c.SetReadDeadline(f.Start.Add(a.Timeout))
		defer c.SetReadDeadline(time.Time{})
	}
	if !a.Require {
		begins, err := beginsHeader(c)
		if err != nil || !begins {
			return c, err
		}
	}
	raw, err := readHeader(c)
	if err != nil {
		return nil, headerError(err)
	}
	h, err := parse(raw)
	if err != nil {
		return nil, headerError(err)
	}
	return c, note(f, h)
}

// trusts takes the clients of a unix socket: who may open it is settled by its folder.
func (a AcceptProxy) trusts(client netip.AddrPort) bool {
	ip := client.Addr().Unmap().WithZone("")
	return !client.IsValid() || slices.ContainsFunc(a.Trust, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// beginsHeader looks at the first byte, which no TLS record shares with a header.
func beginsHeader(c flow.Conn) (bool, error) {
	p, ok := c.(flow.Peeker)
	if !ok {
		return false, flow.Fail(flow.Internal, "a PROXY header cannot be looked for on a %T", c)
	}
	var first [1]byte
	n, err := p.Peek(first[:])
	if err != nil {
		return false, headerError(err)
	}
	return n == 1 && (first[0] == signature[0] || first[0] == textual[0]), nil
}

var (
	signature = []byte(wire.PROXYv2)
	textual   = []byte(wire.PROXYv1)
)

const (
	maxText = 107 // bytes of a header of version 1, line end included
	maxTLVs = 4096
)

var errNoHeader = errors.New("no PROXY header")

// readHeader reads as many bytes as the header has, and not one more.
func readHeader(r io.Reader) ([]byte, error) {
	raw := make([]byte, len(signature), 256)
	if _, err := io.ReadFull(r, raw); err != nil {
		return nil, err
	}
	switch {
	case bytes.Equal(raw, signature):
		return readBinary(r, raw)
	case bytes.HasPrefix(raw, textual):
		return readText(r, raw)
	}
	return nil, errNoHeader
}

func readBinary(r io.Reader, raw []byte) ([]byte, error) {
	raw = raw[:16]
	if _, err := io.ReadFull(r, raw[12:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(raw[14:]))
	if n > maxTLVs {
		return nil, tooLong(n)
	}
	raw = append(raw, make([]byte, n)...)
	_, err := io.ReadFull(r, raw[16:])
	return raw, err
}

func tooLong(n int) error {
	return fmt.Errorf("it says that %d bytes follow; at most %d are taken", n, maxTLVs)
}

func readText(r io.Reader, raw []byte) ([]byte, error) {
	for !bytes.HasSuffix(raw, []byte("\n")) {
		if len(raw) == maxText {
			return nil, fmt.Errorf("its line is longer than %d bytes", maxText)
		}
		raw = append(raw, 0)
		if _, err := io.ReadFull(r, raw[len(raw)-1:]); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

// parse wants all of raw to be one header.
func parse(raw []byte) (*proxyproto.Header, error) {
	if isUnspecified(raw) {
		raw = bytes.Clone(raw)
		raw[12] = byte(proxyproto.LOCAL)
	}
	r := bufio.NewReaderSize(bytes.NewReader(raw), len(raw))
	h, err := proxyproto.Read(r)
	if err != nil {
		return nil, err
	}
	if _, err := r.ReadByte(); err != io.EOF {
		return nil, errors.New("bytes are left over behind its addresses")
	}
	return h, nil
}

// isUnspecified says that a header names nobody, as one of a unix socket's client does.
// The receiver is free to take it (section 2.2); the library takes those of LOCAL alone.
func isUnspecified(raw []byte) bool {
	return bytes.HasPrefix(raw, signature) && len(raw) >= fixed && raw[12] == byte(proxyproto.PROXY) && raw[13] == byte(proxyproto.UNSPEC)
}

func headerError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return flow.Fail(flow.ProxyHeaderMissing, "no PROXY header came in time")
	case errors.Is(err, errNoHeader):
		return flow.Fail(flow.ProxyHeaderMissing, "the client began without a PROXY header")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return flow.Fail(flow.ClientGone, "the client left before its PROXY header was complete")
	}
	return flow.Fail(flow.ProxyHeaderBad, "reading the PROXY header: %w", err)
}

// note keeps of a header whom it names. One of LOCAL or UNKNOWN names nobody: the
// proxy itself speaks, to see whether we live.
func note(f *flow.Flow, h *proxyproto.Header) error {
	if h.Command.IsLocal() || h.TransportProtocol.IsUnspec() {
		return nil
	}
	if h.TransportProtocol.IsUnix() {
		return nil // it has no address that a rule could be about
	}
	from, ok := h.SourceAddr.(interface{ AddrPort() netip.AddrPort })
	to, ok2 := h.DestinationAddr.(interface{ AddrPort() netip.AddrPort })
	if !ok || !ok2 {
		return flow.Fail(flow.ProxyHeaderBad, "the PROXY header names addresses of a kind that is not known: %v", h.TransportProtocol)
	}
	f.Asked.Client, f.Asked.Local = unmapped(from.AddrPort()), unmapped(to.AddrPort())
	return nil
}

func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
