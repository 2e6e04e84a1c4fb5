package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"sallyport/name"
	"sallyport/rule"
)

// enums are the words that a named string type may be.
var enums = map[string][]string{
	"LogFormat": {"text", "json"},
	"LogLevel":  {"debug", "info", "warn", "error"},
	"Action":    {"terminate", "splice", "reject"},
	"Auth":      {"require", "optional", "none"},
	"Profile":   {"webpki", "private", "strict"},
	"Preset":    {"modern", "intermediate", "old"},

	"Revocation":  {"off", "soft", "hard"},
	"DANE":        {"off", "prefer", "require"},
	"TLSA":        {"off", "hold"},
	"ProxyAccept": {"off", "optional", "require", "each"},
	"ProxySend":   {"off", "v1", "v2", "v2_each"},
	"CT":          {"off", "report", "require"},

	"Balance":   {"round_robin", "least", "hash"},
	"Hash":      {"client"},
	"CheckKind": {"off", "tcp", "tls", "udp", "dtls"},
}

var switches = map[string]Switch{"on": true, "true": true, "off": false, "false": false, "none": false}

func parseSwitch(text string) (Switch, error) {
	if on, ok := switches[text]; ok {
		return on, nil
	}
	if on, ok := switches[strings.ToLower(text)]; ok {
		word := "off"
		if on {
			word = "on"
		}
		return false, complain("", "`%s` is neither on nor off; did you mean `%s`?", printable(text), word)
	}
	return false, complain("on or true, off, false or none", "`%s` is neither on nor off", printable(text))
}

func parseEnum(typ, text string) error {
	known := enums[typ]
	for _, k := range known {
		if text == k {
			return nil
		}
	}
	last := len(known) - 1
	list := known[last]
	if last > 0 {
		list = strings.Join(known[:last], ", ") + " or " + list
	}
	if near := nearest(text, known); near != "" {
		return complain("", "`%s` is not %s; did you mean `%s`?", printable(text), list, near)
	}
	return complain("", "`%s` is not %s", printable(text), list)
}

func parseVersion(text string) (Version, error) {
	switch text {
	case "1.0":
		return 0x0301, nil
	case "1.1":
		return 0x0302, nil
	case "1.2":
		return 0x0303, nil
	case "1.3":
		return 0x0304, nil
	}
	bare := strings.TrimLeft(strings.ToLower(text), "tlsv ")
	if slices.Contains([]string{"1.0", "1.1", "1.2", "1.3"}, bare) {
		return 0, complain("", "`%s` is no TLS version; did you mean %s?", printable(text), bare)
	}
	return 0, complain("1.0, 1.1, 1.2 or 1.3", "`%s` is no TLS version", printable(text))
}

const leastMTU, mostMTU = 100, 16384

func parseMTU(text string) (MTU, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n < leastMTU || n > mostMTU {
		return 0, complain(fmt.Sprintf("bytes, from %d to %d: 1200 passes nearly everywhere", leastMTU, mostMTU), "`%s` is no MTU", printable(text))
	}
	return MTU(n), nil
}

func parseCount(text string) (Count, error) {
	if text == "auto" {
		return Auto, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if on, ok := switches[text]; ok && !bool(on) {
		n, err = 0, nil
	}
	if err != nil {
		return 0, complain("a whole number; 0 is no bound", "`%s` is no count", printable(text))
	}
	return Count(n), nil
}

var units = map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 1e3, "MB": 1e6, "GB": 1e9}

// leastMemory is what the program takes by itself.
const leastMemory = 32 << 20

func parseMemory(text string) (Memory, error) {
	if text == "auto" {
		return Auto, nil
	}
	if on, ok := switches[text]; ok && !bool(on) {
		return 0, nil
	}
	digits := strings.TrimRight(text, "KMGiB")
	n, err := strconv.ParseInt(digits, 10, 64)
	unit, ok := units[text[len(digits):]]
	switch {
	case err != nil || !ok || n < 0 || n > math.MaxInt64/unit:
		return 0, complain("512MiB, 2GiB, auto or off", "`%s` is no size", printable(text))
	case n*unit < leastMemory && n != 0:
		return 0, complain("", "`%s` is less than the program needs by itself, which is 32MiB", printable(text))
	}
	return Memory(n * unit), nil
}

func parseBits(text string, most int) (int, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(text, "/"))
	if err != nil || n < 1 || n > most {
		return 0, complain(fmt.Sprintf("from 1 to %d", most), "`%s` is no length of a prefix", printable(text))
	}
	return n, nil
}

func parseShare(text string) (Part, error) {
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n <= 1) {
		return 0, complain("1 is all, 0.1 each tenth, 0 none", "`%s` is no share: a number from 0 to 1", printable(text))
	}
	return Part(n), nil
}

// ParseDuration reads Go's durations, with d for days, and a bare 0.
func ParseDuration(text string) (time.Duration, error) {
	bad := func() error {
		if _, err := strconv.ParseFloat(text, 64); err == nil {
			return complain("", "`%s` has no unit; did you mean %ss?", printable(text), printable(text))
		}
		return complain("a number with a unit: 300ms, 5s, 10m, 1h30m, 7d", "`%s` is no duration", printable(text))
	}
	if text == "0" {
		return 0, nil
	}
	rest, sign := text, 1.0
	if r, ok := strings.CutPrefix(rest, "-"); ok {
		rest, sign = r, -1
	} else {
		rest = strings.TrimPrefix(rest, "+")
	}
	var days float64
	if number, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || strings.Trim(number, "0123456789.") != "" {
			return 0, bad()
		}
		days, rest = n*float64(24*time.Hour), after
		if rest == "" {
			rest = "0"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || strings.ContainsAny(rest[:1], "+-") {
		return 0, bad()
	}
	if days+float64(d) >= math.MaxInt64 {
		return 0, complain("", "`%s` is longer than any clock", printable(text))
	}
	return time.Duration(sign) * (time.Duration(days) + d), nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		ip = ip.Unmap()
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return p, complain("", "`%s` is neither an IP address nor a range like 10.0.0.0/8", printable(text))
	}
	if p != p.Masked() {
		return p, complain("", "`%s` has bits beyond its length; did you mean %s?", printable(text), p.Masked())
	}
	return p, nil
}

func parseClock(text string) (ClockOffset, error) {
	if file, ok := strings.CutPrefix(text, "@"); ok {
		if file == "" {
			return ClockOffset{}, complain("", "`@` names no file")
		}
		return ClockOffset{File: file}, nil
	}
	by, err := ParseDuration(text)
	return ClockOffset{By: by}, err
}

func parseName(text string) (Name, error) {
	if text == "" {
		return Name{}, nil
	}
	p, err := name.Parse(text)
	return Name{text, p}, err
}

// checkPin takes curl's form and what openssl and most tools print.
func checkPin(text string) error {
	if b64, ok := strings.CutPrefix(text, "sha256//"); ok {
		if sum, err := base64.StdEncoding.DecodeString(b64); err == nil && len(sum) == 32 {
			return nil
		}
	} else if sum, err := hex.DecodeString(strings.ReplaceAll(text, ":", "")); err == nil && len(sum) == 32 {
		return nil
	}
	return complain("the SHA-256 of a public key: sha256//BASE64 as curl has it, or 64 hexadecimal digits", "`%s` is no pin", printable(text))
}

func checkKey(text string) error {
	for _, k := range laterKeys {
		if strings.HasPrefix(text, k) {
			return complain("", "`%s` %s", k, notBuilt)
		}
	}
	return checkFile(text)
}

func checkFile(text string) error {
	for _, p := range []string{"env:", "cred:"} {
		if text == p {
			return complain("", "`%s` names nothing", p)
		}
	}
	if text == "" {
		return complain("", "an empty file name")
	}
	if strings.Contains(text, "-----BEGIN") || inBase64.FindString(text) == text {
		return complain("write it to a file of mode 0600, and the path here; or env:NAME", "a path stands here, and this is what such a file holds")
	}
	return nil
}

// checkSource takes a file, or a URL to fetch it from.
func checkSource(text string) error {
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case !ok:
		return checkFile(text)
	case scheme != "https" && scheme != "http", rest == "":
		return complain("a file, or https://host/path", "`%s` is neither a file nor a URL", printable(text))
	case strings.Contains(rest, "@"):
		return complain("", "`%s` names who asks: what is fetched here is for everybody, and the log shows where from", printable(text))
	}
	return nil
}

// checkText is for what goes into logs or is compared as it stands.
func checkText(what, text string) error {
	if text == "" {
		return complain("", "an empty %s", what)
	}
	for _, r := range text {
		if !unicode.IsPrint(r) {
			return complain("", "a %s with unprintable characters", what)
		}
	}
	return nil
}

// checkUser takes NAME or UID, and a GROUP behind a colon. Whether there is such a
// user is known where it starts.
func checkUser(text string) error {
	user, group, named := strings.Cut(text, ":")
	word := func(s string) bool { return s != "" && !strings.ContainsAny(s, ": \t/") }
	if !word(user) || named && !word(group) {
		return complain("sallyport, 997 or sallyport:ssl-cert", "`%s` is no user", printable(text))
	}
	return checkText("user", text)
}

// checkString looks at a text as its field's tag `as` asks.
func checkString(as, text string) error {
	var err error
	switch as {
	case "file", "anchor":
		return checkFile(text)
	case "source":
		return checkSource(text)
	case "key":
		return checkKey(text)
	case "user":
		return checkUser(text)
	case "pin":
		return checkPin(text)
	case "cipher":
		return cipher(text)
	case "group":
		return keyExchange(text)
	case "dns":
		_, err = name.Parse(text)
	case "uri":
		_, err = name.ParseURI(text)
	case "text":
		if err = checkText("name", text); err == nil {
			_, err = name.ParseText(text)
		}
	case "prefix":
		_, err = parsePrefix(text)
	case "label":
		if strings.ContainsAny(text, " \t") {
			return complain("", "`%s`: a listener's name is one word", printable(text))
		}
		return checkText("name", text)
	case "host", "sni":
		if text == "" && as == "sni" {
			return nil
		}
		if as == "host" && strings.HasPrefix(text, spiffeScheme) {
			return checkID(text)
		}
		if _, err := netip.ParseAddr(text); err != nil {
			return checkHost(text)
		}
		if as == "sni" {
			return complain(`"" sends none`, "an IP address is no server name (RFC 6066, section 3)")
		}
	case "rule":
		_, err = rule.Parse(text)
		return checkRule(text, err)
	case "choice":
		_, err = rule.ParseChoice(text)
		return checkRule(text, err)
	case "protocol":
		return checkProtocol(text)
	case "identity":
		return checkIdentity(text)
	case "bytes":
		if text == "" || len(text) > maxBytes {
			return complain("", "a text to send or to wait for has 1 to %d bytes", maxBytes)
		}
	default:
		return checkText("text", text)
	}
	return err
}

// checkID takes a SPIFFE ID, and no pattern of some.
func checkID(text string) error {
	p, err := name.ParseURI(text)
	if err != nil {
		return err
	}
	if id, ok := p.Literal(); !ok || id != text {
		return complain("one ID: spiffe://corp/db", "`%s` is a pattern, and a server has one SPIFFE ID", printable(text))
	}
	return nil
}

// checkRule points into the expression.
func checkRule(text string, err error) error {
	if e := (*rule.Error)(nil); errors.As(err, &e) {
		return &complaint{msg: "`if`: " + printable(e.Msg), hint: e.Hint, text: text, offset: e.Offset}
	}
	return err
}

// maxBytes bounds what a check sends and waits for.
const maxBytes = 4 << 10

func checkProtocol(text string) error {
	if text == "" || len(text) > 255 {
		return complain("h2, http/1.1", "a protocol's name has 1 to 255 bytes (RFC 7301)")
	}
	return nil
}

func checkIdentity(text string) error {
	if text == "" || strings.ContainsAny(text, ":\r\n") {
		return complain("what stands before the colon in its line", "`%s` is no identity of a pre-shared key", printable(text))
	}
	return nil
}
