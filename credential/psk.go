package credential

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of a line in a file of pre-shared keys, in bytes. Libraries for small
// devices take no more than RFC 4279, section 5.3, asks of them.
const (
	maxIdentity = 128
	maxPSK      = 64
	shortPSK    = 16 // below it, a stranger who has seen a handshake can try them all
)

// PSKs are pre-shared keys by their identities (RFC 4279). They are never changed.
type PSKs struct{ keys map[string][]byte }

// Key gives the key of identity. An identity is no secret, so that the look-up may
// take a time of its own; the key is not compared with anything here.
func (p *PSKs) Key(identity []byte) (key []byte, ok bool) {
	key, ok = p.keys[string(identity)]
	return key, ok
}

// Identities lists them in order.
func (p *PSKs) Identities() []string {
	list := make([]string, 0, len(p.keys))
	for id := range p.keys {
		list = append(list, id)
	}
	slices.Sort(list)
	return list
}

// Hash is of all identities and their keys.
func (p *PSKs) Hash() [32]byte {
	h := sha256.New()
	for _, id := range p.Identities() {
		fmt.Fprintf(h, "%d:%s%d:", len(id), id, len(p.keys[id]))
		h.Write(p.keys[id])
	}
	return [32]byte(h.Sum(nil))
}

// String does not show what must not be in a log.
func (p *PSKs) String() string { return fmt.Sprintf("%d pre-shared keys", len(p.keys)) }

// LoadPSK reads pre-shared keys from a location as [Read] takes it: lines of
// identity:hexkey as GnuTLS's psktool writes them, empty lines and lines that
// begin with #. Of the options AllowKeyMode and Env count. No error has a key in it.
func LoadPSK(location string, o Options) (p *PSKs, warnings []string, err error) {
	if o.Env == nil {
		o.Env = func(string) string { return "" }
	}
	data, info, err := Read(location, o.Env)
	if err != nil {
		return nil, nil, fmt.Errorf("psk: %w", err)
	}
	defer clear(data)
	refuse, warn := judgeMode(location, info)
	refuse, warn = plural(refuse), plural(warn)
	if refuse != "" {
		if !o.AllowKeyMode {
			return nil, nil, fmt.Errorf("psk: %s; unsafe.key_mode takes it as it is", refuse)
		}
		warnings = append(warnings, "unsafe.key_mode: "+refuse)
	}
	if warn != "" {
		warnings = append(warnings, warn)
	}
	p, short, err := parsePSK(location, data)
	if err != nil {
		return nil, warnings, fmt.Errorf("psk: %w", err)
	}
	if len(short) > 0 {
		warnings = append(warnings, fmt.Sprintf("%s: %d of the keys are shorter than %d bytes, the first on line %d: who records a handshake can guess them",
			location, len(short), shortPSK, short[0]))
	}
	return p, warnings, nil
}

func plural(text string) string {
	return strings.Replace(text, "holds a private key", "holds pre-shared keys", 1)
}

// parsePSK also gives the numbers of lines with short keys.
func parsePSK(name string, data []byte) (p *PSKs, short []int, err error) {
	p = &PSKs{keys: map[string][]byte{}}
	at := map[string]int{}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		line = bytes.TrimRight(line, "\r\n")
		if trimmed := bytes.TrimSpace(line); len(trimmed) == 0 || trimmed[0] == '#' {
			continue
		}
		id, key, err := parsePSKLine(line)
		if err != nil {
			return nil, nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
		if at[id] != 0 {
			return nil, nil, fmt.Errorf("%s:%d: identity %q stands on line %d already", name, n, id, at[id])
		}
		at[id], p.keys[id] = n, key
		if len(key) < shortPSK {
			short = append(short, n)
		}
	}
	if len(p.keys) == 0 {
		return nil, nil, fmt.Errorf("%s: no key in it; a line is identity:hexkey, and psktool -u NAME -p FILE adds one", name)
	}
	return p, short, nil
}

// parsePSKLine splits at the last colon: an identity may have some, a key has none.
func parsePSKLine(line []byte) (id string, key []byte, err error) {
	at := bytes.LastIndexByte(line, ':')
	if at < 0 {
		return "", nil, errors.New("no colon: a line is identity:hexkey")
	}
	id, text := string(line[:at]), bytes.TrimSpace(line[at+1:])
	switch {
	case id == "":
		return "", nil, errors.New("no identity before the colon")
	case len(id) > maxIdentity:
		return "", nil, fmt.Errorf("an identity of %d bytes; %d is the most", len(id), maxIdentity)
	case strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", nil, errors.New("control characters in the identity")
	case len(text) == 0:
		return "", nil, fmt.Errorf("no key behind identity %q", id)
	case len(text) > 2*maxPSK:
		return "", nil, fmt.Errorf("the key of identity %q is longer than %d bytes", id, maxPSK)
	}
	key = make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(key, text); err != nil {
		// What hex says has a character of the key in it.
		return "", nil, fmt.Errorf("the key of identity %q is not written in pairs of hexadecimal digits", id)
	}
	return id, key, nil
}
