package record

import (
	"bytes"
	"fmt"
	"io"

	"golang.org/x/crypto/cryptobyte"

	"sallyport/wire"
)

const (
	typeNewSessionTicket = 4
	typeKeyUpdate        = 24

	messageHeader = 4
	// maxMessage is the largest handshake message, as in crypto/tls.
	maxMessage = 64 << 10
	// maxUseless is how many records and messages in a row may hold no data, as in
	// crypto/tls: each costs us more than the peer.
	maxUseless = 16
)

func unexpected(format string, args ...any) *Fault {
	return &Fault{wire.AlertUnexpectedMessage, fmt.Sprintf(format, args...)}
}

// data hears of a record with data, maybe none.
func (c *Conn) data(content []byte) *Fault {
	c.tickets = nil
	if len(c.hand) > 0 {
		return unexpected("data within a handshake message") // RFC 8446, section 5.1
	}
	if len(content) == 0 {
		return c.wasted()
	}
	c.useless = 0
	return nil
}

func (c *Conn) wasted() *Fault {
	c.useless++
	if c.useless > maxUseless {
		return unexpected("more than %d records and messages without data", maxUseless)
	}
	return nil
}

// message hears a record that is not data. sealed is how it came, where tickets
// is to know.
func (c *Conn) message(typ byte, content, sealed []byte) *Fault {
	switch {
	case typ != typeAlert && typ != typeHandshake:
		return unexpected("a record of inner type %d after the handshake", typ)
	case len(content) == 0:
		return unexpected("an empty record of inner type %d", typ) // RFC 8446, section 5.4
	case typ == typeAlert:
		c.tickets = nil
		return c.alert(content)
	}
	only, fault := c.handshake(content)
	if fault == nil && c.tickets != nil && !(only && c.tickets(sealed)) {
		c.tickets = nil
	}
	return fault
}

// alert hears an alert, whose level says nothing since TLS 1.3 (RFC 8446, section 6).
func (c *Conn) alert(content []byte) *Fault {
	if len(c.hand) > 0 {
		return unexpected("an alert within a handshake message")
	}
	if len(content) != 2 {
		return unexpected("an alert of %d bytes", len(content))
	}
	switch a := wire.Alert(content[1]); a {
	case wire.AlertCloseNotify:
		c.end(io.EOF)
	case wire.AlertUserCanceled:
		// Java sends it ahead of close_notify (bugs.openjdk.org/browse/JDK-8323517).
		return c.wasted()
	default:
		c.end(RemoteAlert(a))
	}
	return nil
}

// handshake hears messages, or parts of them, and says whether they are tickets
// only.
func (c *Conn) handshake(content []byte) (tickets bool, fault *Fault) {
	rest := content
	if len(c.hand) > 0 {
		c.hand = append(c.hand, content...)
		rest = c.hand
	}
	begun := rest
	tickets = true
	for len(rest) > 0 {
		typ := rest[0]
		switch {
		case typ == typeKeyUpdate:
			tickets = false
		case typ != typeNewSessionTicket || !c.client:
			// CertificateRequest too: we never offer post_handshake_auth.
			return false, unexpected("handshake message %d after the handshake", typ)
		}
		if len(rest) < messageHeader {
			break
		}
		size := int(rest[1])<<16 | int(rest[2])<<8 | int(rest[3])
		if size > maxMessage || typ == typeKeyUpdate && size != 1 {
			return false, &Fault{wire.AlertDecodeError, fmt.Sprintf("handshake message %d of %d bytes", typ, size)}
		}
		if len(rest) < messageHeader+size {
			break
		}
		body := rest[messageHeader : messageHeader+size]
		rest = rest[messageHeader+size:]
		if fault := c.wasted(); fault != nil {
			return false, fault
		}
		if fault := c.whole(typ, body, len(rest) > 0); fault != nil {
			return false, fault
		}
	}
	switch {
	case len(rest) == 0:
		c.hand = nil
	case len(rest) < len(begun) || len(c.hand) == 0:
		c.hand = bytes.Clone(rest)
	}
	return tickets, nil
}

// whole hears one whole message. more says that its record goes on behind it.
func (c *Conn) whole(typ byte, body []byte, more bool) *Fault {
	if typ == typeNewSessionTicket {
		if !isTicket(body) {
			return &Fault{wire.AlertDecodeError, "a malformed NewSessionTicket"}
		}
		return nil
	}
	switch {
	case more:
		return unexpected("a KeyUpdate within a record") // RFC 8446, section 5.1
	case body[0] > 1:
		return &Fault{wire.AlertIllegalParameter, fmt.Sprintf("KeyUpdate with request %d", body[0])}
	}
	c.read.update()
	if body[0] == 1 {
		c.answer.Store(true)
	}
	return nil
}

// isTicket checks the form of a NewSessionTicket (RFC 8446, section 4.6.1).
func isTicket(body []byte) bool {
	s := cryptobyte.String(body)
	var nonce, ticket, extensions cryptobyte.String
	return s.Skip(8) && s.ReadUint8LengthPrefixed(&nonce) && s.ReadUint16LengthPrefixed(&ticket) &&
		len(ticket) > 0 && s.ReadUint16LengthPrefixed(&extensions) && s.Empty()
}
