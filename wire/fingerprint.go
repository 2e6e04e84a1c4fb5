package wire

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// JA3 is the older fingerprint of a client: the MD5 of its version, suites,
// extensions, groups and point formats in the order sent. Browsers permute their
// extensions since 2023, which gives each connection another JA3.
func (h *Hello) JA3() string {
	sum := md5.Sum([]byte(h.ja3())) // #nosec G401 -- the fingerprint is defined so, and nothing rests on it
	return hex.EncodeToString(sum[:])
}

func (h *Hello) ja3() string {
	points := make([]uint16, len(h.Points))
	for i, p := range h.Points {
		points[i] = uint16(p)
	}
	return strings.Join([]string{
		strconv.Itoa(int(h.Version)),
		join(withoutGREASE(h.CipherSuites), '-', decimal),
		join(withoutGREASE(h.Extensions), '-', decimal),
		join(withoutGREASE(h.Groups), '-', decimal),
		join(points, '-', decimal),
	}, ",")
}

// JA4 is the fingerprint of a TLS client over TCP or of a DTLS client as FoxIO
// defines it, the part of JA4+ that is under the BSD licence:
// t13d1516h2_8daaf6152771_e5627efa2ab1.
func (h *Hello) JA4() string {
	a, b, c := h.ja4()
	return a + "_" + ja4Hash(b) + "_" + ja4Hash(c)
}

// ja4 gives the three parts of JA4_r; the last two are hashed in JA4.
func (h *Hello) ja4() (a, b, c string) {
	suites := withoutGREASE(h.CipherSuites)
	extensions := withoutGREASE(h.Extensions)
	sni := "i"
	if slices.Contains(extensions, extServerName) {
		sni = "d"
	}
	over := "t"
	if h.DTLS {
		over = "d"
	}
	a = fmt.Sprintf("%s%s%s%02d%02d%s", over, h.ja4Version(), sni, min(len(suites), 99), min(len(extensions), 99), ja4ALPN(h.ALPN))

	slices.Sort(suites)
	b = join(suites, ',', hex4)

	// Whether a client names a server and a protocol depends on the use, not on the client.
	extensions = slices.DeleteFunc(extensions, func(e uint16) bool { return e == extServerName || e == extALPN })
	slices.Sort(extensions)
	c = join(extensions, ',', hex4)
	if schemes := withoutGREASE(h.Schemes); c != "" && len(schemes) > 0 {
		c += "_" + join(schemes, ',', hex4)
	}
	return a, b, c
}

func (h *Hello) ja4Version() string {
	v := h.Version
	if slices.Contains(h.Extensions, extSupportedVersions) {
		v = 0
		for _, offered := range h.Versions {
			if v == 0 || (offered > v) != h.DTLS { // DTLS's versions count down
				v = offered
			}
		}
	}
	switch v {
	case VersionDTLS13:
		return "d3"
	case VersionDTLS12:
		return "d2"
	case VersionDTLS10:
		return "d1"
	case VersionTLS13:
		return "13"
	case VersionTLS12:
		return "12"
	case VersionTLS11:
		return "11"
	case VersionTLS10:
		return "10"
	case VersionSSL30:
		return "s3"
	}
	return "00"
}

// ja4ALPN is the first and last character of the first protocol; of its
// hexadecimal form where either is no ASCII letter or digit.
func ja4ALPN(protocols []string) string {
	if len(protocols) == 0 {
		return "00"
	}
	p := protocols[0]
	if !isAlphanumeric(p[0]) || !isAlphanumeric(p[len(p)-1]) {
		p = hex.EncodeToString([]byte(p))
	}
	return p[:1] + p[len(p)-1:]
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

func ja4Hash(s string) string {
	if s == "" {
		return "000000000000"
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:6])
}

func join(list []uint16, separator byte, number func([]byte, uint16) []byte) string {
	b := make([]byte, 0, 6*len(list))
	for i, v := range list {
		if i > 0 {
			b = append(b, separator)
		}
		b = number(b, v)
	}
	return string(b)
}

func decimal(b []byte, v uint16) []byte { return strconv.AppendUint(b, uint64(v), 10) }

func hex4(b []byte, v uint16) []byte {
	return hex.AppendEncode(b, []byte{byte(v >> 8), byte(v)})
}
