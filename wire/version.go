package wire

import (
	"fmt"
	"slices"
)

// Versions as on the wire.
const (
	VersionSSL30 = 0x0300
	VersionTLS10 = 0x0301
	VersionTLS11 = 0x0302
	VersionTLS12 = 0x0303
	VersionTLS13 = 0x0304

	// Of DTLS, whose numbers count down. There is no DTLS 1.1.
	VersionDTLS10 = 0xfeff
	VersionDTLS12 = 0xfefd
	VersionDTLS13 = 0xfefc
)

var versionNames = map[uint16]string{
	VersionSSL30: "SSL 3.0",
	VersionTLS10: "TLS 1.0",
	VersionTLS11: "TLS 1.1",
	VersionTLS12: "TLS 1.2",
	VersionTLS13: "TLS 1.3",

	VersionDTLS10: "DTLS 1.0",
	VersionDTLS12: "DTLS 1.2",
	VersionDTLS13: "DTLS 1.3",
}

// VersionName names a version as people do, "TLS 1.3", or gives its number.
func VersionName(v uint16) string {
	if name, ok := versionNames[v]; ok {
		return name
	}
	return fmt.Sprintf("0x%04x", v)
}

// upTo lists what a client without supported_versions can speak. TLS 1.3 is only
// ever negotiated by that extension (RFC 8446, section 4.2.1), and a client that
// ends at SSL 3.0 is told so by name.
func upTo(version uint16) []uint16 {
	if version == VersionSSL30 {
		return []uint16{VersionSSL30}
	}
	var list []uint16
	for v := min(version, VersionTLS12); v >= VersionTLS10; v-- {
		list = append(list, v)
	}
	return list
}

// upToDTLS is the same for DTLS (RFC 9147, section 5.3).
func upToDTLS(version uint16) []uint16 {
	switch {
	case version>>8 != dtlsMajor:
		return nil
	case version <= VersionDTLS12:
		return []uint16{VersionDTLS12, VersionDTLS10}
	}
	return []uint16{VersionDTLS10}
}

// isGREASE is RFC 8701, section 2: 0x0a0a, 0x1a1a, ..., 0xfafa.
func isGREASE(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

func withoutGREASE(list []uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(list), isGREASE)
}
