package verify

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// ParsePin reads the SHA-256 of a SubjectPublicKeyInfo as curl writes it,
// sha256//BASE64, or in hexadecimal, with colons or without.
func ParsePin(s string) (pin [32]byte, err error) {
	var b []byte
	if text, ok := strings.CutPrefix(s, "sha256//"); ok && !strings.ContainsAny(text, "\r\n") {
		b, err = base64.StdEncoding.Strict().DecodeString(text)
	} else {
		b, err = parseHex(s)
	}
	if err != nil || len(b) != len(pin) {
		return pin, fmt.Errorf("%s is no SHA-256 of a public key: it is written sha256//BASE64 (44 characters) or as 64 hexadecimal digits, with colons or without", quote(s))
	}
	return [32]byte(b), nil
}

func parseHex(s string) ([]byte, error) {
	if strings.Contains(s, ":") {
		for pair := range strings.SplitSeq(s, ":") {
			if len(pair) != 2 {
				return nil, hex.ErrLength
			}
		}
		s = strings.ReplaceAll(s, ":", "")
	}
	return hex.DecodeString(s)
}

// FormatPin writes a pin as [ParsePin] reads it.
func FormatPin(pin [32]byte) string {
	return "sha256//" + base64.StdEncoding.EncodeToString(pin[:])
}

// Pin is a check that the leaf's key is one of spki; of none, none is.
func Pin(spki ...[32]byte) Check { return pins(spki) }

// PinAuthenticator authenticates by the key alone, as DANE-EE does (RFC 7671,
// section 5.1): name, issuer and validity of the certificate say nothing then,
// and the identity has no names.
func PinAuthenticator(spki ...[32]byte) Authenticator { return pins(spki) }

type pins [][32]byte

func (pins) String() string { return "pin" }

func (k pins) Check(_ context.Context, p *Presented, id *Identity) error {
	if slices.Contains(k, id.spki) {
		return nil
	}
	return fail(PinWrong, "the %s has the key %s, which is none of the %d pinned", describe(id.leaf), FormatPin(id.spki), len(k))
}

func (k pins) Authenticate(ctx context.Context, p *Presented) (*Identity, error) {
	if err := bounds(p); err != nil {
		return nil, err
	}
	leaf := p.Chain[0]
	if err := keyFloor(leaf); err != nil {
		return nil, err
	}
	id := identify(k.String(), leaf, nil, false)
	if err := k.Check(ctx, p, id); err != nil {
		return nil, err
	}
	return id, nil
}
