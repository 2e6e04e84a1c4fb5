package config

import (
	"slices"
	"strings"
)

type suite struct {
	openssl, iana string
	id            uint16
}

// The cipher suites that pion/dtls has beside some of crypto/tls's: for small
// devices and for pre-shared keys.
var dtlsSuites = []suite{
	{"ECDHE-ECDSA-AES128-CCM", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM", 0xc0ac},
	{"ECDHE-ECDSA-AES128-CCM8", "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8", 0xc0ae},
	{"PSK-AES128-CCM", "TLS_PSK_WITH_AES_128_CCM", 0xc0a4},
	{"PSK-AES128-CCM8", "TLS_PSK_WITH_AES_128_CCM_8", 0xc0a8},
	{"PSK-AES256-CCM8", "TLS_PSK_WITH_AES_256_CCM_8", 0xc0a9},
	{"PSK-AES128-GCM-SHA256", "TLS_PSK_WITH_AES_128_GCM_SHA256", 0x00a8},
	{"PSK-AES128-CBC-SHA256", "TLS_PSK_WITH_AES_128_CBC_SHA256", 0x00ae},
	{"PSK-CHACHA20-POLY1305", "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256", 0xccab},
	{"ECDHE-PSK-AES128-CBC-SHA256", "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256", 0xc037},
	{"ECDHE-PSK-CHACHA20-POLY1305", "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", 0xccac},
}

// sharedSuites are those of crypto/tls that pion/dtls has too, and sharedGroups.
var (
	sharedSuites = []uint16{0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9, 0xc00a, 0xc014}
	sharedGroups = []uint16{0x001d, 0x0017, 0x0018}
)

func allSuites() []suite { return append(suites[:len(suites):len(suites)], dtlsSuites...) }

func tlsSuite(name string) bool {
	return slices.ContainsFunc(suites, func(s suite) bool { return s.named(name) })
}

func dtlsSuite(name string) bool {
	id, _ := CipherID(name)
	return !tlsSuite(name) || slices.Contains(sharedSuites, id)
}

func dtlsGroup(name string) bool {
	id, _ := GroupID(name)
	return slices.Contains(sharedGroups, id)
}

func (s suite) named(name string) bool {
	return strings.EqualFold(name, s.openssl) || strings.EqualFold(name, s.iana)
}

// The cipher suites up to TLS 1.2 that crypto/tls has.
var suites = []suite{
	{"RC4-SHA", "TLS_RSA_WITH_RC4_128_SHA", 0x0005},
	{"DES-CBC3-SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", 0x000a},
	{"AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA", 0x002f},
	{"AES256-SHA", "TLS_RSA_WITH_AES_256_CBC_SHA", 0x0035},
	{"AES128-SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA256", 0x003c},
	{"AES128-GCM-SHA256", "TLS_RSA_WITH_AES_128_GCM_SHA256", 0x009c},
	{"AES256-GCM-SHA384", "TLS_RSA_WITH_AES_256_GCM_SHA384", 0x009d},
	{"ECDHE-ECDSA-RC4-SHA", "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", 0xc007},
	{"ECDHE-ECDSA-AES128-SHA", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", 0xc009},
	{"ECDHE-ECDSA-AES256-SHA", "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", 0xc00a},
	{"ECDHE-RSA-RC4-SHA", "TLS_ECDHE_RSA_WITH_RC4_128_SHA", 0xc011},
	{"ECDHE-RSA-DES-CBC3-SHA", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA", 0xc012},
	{"ECDHE-RSA-AES128-SHA", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", 0xc013},
	{"ECDHE-RSA-AES256-SHA", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", 0xc014},
	{"ECDHE-ECDSA-AES128-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256", 0xc023},
	{"ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256", 0xc027},
	{"ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", 0xc02b},
	{"ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", 0xc02c},
	{"ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", 0xc02f},
	{"ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", 0xc030},
	{"ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca8},
	{"ECDHE-ECDSA-CHACHA20-POLY1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", 0xcca9},
}

var suites13 = []string{
	"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
	"TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256",
}

type group struct {
	id    uint16
	names []string // the first is the usual one
}

var groups = []group{
	{0x11ec, []string{"X25519MLKEM768"}},
	{0x11eb, []string{"SecP256r1MLKEM768"}},
	{0x11ed, []string{"SecP384r1MLKEM1024"}},
	{0x001d, []string{"X25519"}},
	{0x0017, []string{"P-256", "prime256v1", "secp256r1"}},
	{0x0018, []string{"P-384", "secp384r1"}},
	{0x0019, []string{"P-521", "secp521r1"}},
}

// CipherID gives the number of a cipher suite up to TLS 1.2 by its OpenSSL or
// IANA name.
func CipherID(name string) (uint16, bool) {
	for _, s := range allSuites() {
		if s.named(name) {
			return s.id, true
		}
	}
	return 0, false
}

// GroupID gives the number of a key exchange group.
func GroupID(name string) (uint16, bool) {
	for _, g := range groups {
		for _, n := range g.names {
			if strings.EqualFold(name, n) {
				return g.id, true
			}
		}
	}
	return 0, false
}

func cipher(text string) error {
	if _, ok := CipherID(text); ok {
		return nil
	}
	for _, s := range suites13 {
		if strings.EqualFold(text, s) {
			return complain("`ciphers` are those up to TLS 1.2; without TLS 1.3 at all: `max: 1.2`", "TLS 1.3 suites are fixed")
		}
	}
	if strings.ContainsAny(text, ": ") {
		return complain("a list takes [A, B], on the command line commas", "`%s` is not one cipher suite", printable(text))
	}
	var known []string
	for _, s := range allSuites() {
		known = append(known, s.openssl, s.iana)
	}
	return notOne("cipher suite", text, known, "ECDHE-ECDSA-AES128-GCM-SHA256, ECDHE-RSA-CHACHA20-POLY1305 and the like; by default those of the preset")
}

func keyExchange(text string) error {
	if _, ok := GroupID(text); ok {
		return nil
	}
	var known []string
	for _, g := range groups {
		known = append(known, g.names...)
	}
	return notOne("group", text, known, strings.Join(known, ", "))
}

// notOne complains about a word that is not in a long list.
func notOne(what, text string, known []string, hint string) error {
	small := make([]string, len(known))
	for i, k := range known {
		small[i] = strings.ToLower(k)
	}
	for i, k := range small {
		if k == nearest(text, small) {
			return complain("", "unknown %s `%s`; did you mean `%s`?", what, printable(text), known[i])
		}
	}
	return complain(hint, "unknown %s `%s`", what, printable(text))
}
