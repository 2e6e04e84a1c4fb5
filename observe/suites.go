package observe

import "crypto/tls"

// dtlsSuites are those of DTLS that crypto/tls has no name for (IANA's).
var dtlsSuites = map[uint16]string{
	0x00a8: "TLS_PSK_WITH_AES_128_GCM_SHA256",
	0x00ae: "TLS_PSK_WITH_AES_128_CBC_SHA256",
	0xc037: "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256",
	0xc0a4: "TLS_PSK_WITH_AES_128_CCM",
	0xc0a8: "TLS_PSK_WITH_AES_128_CCM_8",
	0xc0a9: "TLS_PSK_WITH_AES_256_CCM_8",
	0xc0ac: "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
	0xc0ae: "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
	0xccab: "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256",
	0xccac: "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256",
}

// SuiteName is IANA's name, or the number of a suite that has none here.
func SuiteName(id uint16) string {
	if name, ok := dtlsSuites[id]; ok {
		return name
	}
	return tls.CipherSuiteName(id)
}
