package posture

import (
	"fmt"
	"slices"
	"strings"
)

// CheckEnv reads an environment, as os.Environ gives it. Its error names all that
// lowers security and must be unset; the warnings are for the log.
//
// A refusal and not a repair: the settings act on the whole process, before and
// besides any configuration, and whoever set one meant something by it.
func CheckEnv(environ []string) (warnings []string, err error) {
	var refused []string
	for _, entry := range environ {
		key, value, _ := strings.Cut(entry, "=")
		if key == "GODEBUG" {
			refused = append(refused, lowering(value)...)
		} else if w := warning(key, value); w != "" {
			warnings = append(warnings, w)
		}
	}
	switch len(refused) {
	case 0:
		return warnings, nil
	case 1:
		return warnings, fmt.Errorf("GODEBUG %s in the environment lowers security: unset it", refused[0])
	}
	return warnings, fmt.Errorf("GODEBUG settings in the environment lower security: unset %s", strings.Join(refused, ", "))
}

func warning(key, value string) string {
	if value == "" {
		return ""
	}
	switch key {
	case "SSLKEYLOGFILE":
		return "SSLKEYLOGFILE is ignored; unsafe.keylog writes the session keys of a route"
	case "SSL_CERT_FILE", "SSL_CERT_DIR":
		return fmt.Sprintf("%s in the environment replaces the system's trust anchors by those of %q", key, value)
	case "GOTRACEBACK":
		if value == "crash" || value == "system" || value == "wer" || value == "2" {
			return fmt.Sprintf("GOTRACEBACK=%s in the environment: a crash shows more of the process's memory than its goroutines", value)
		}
	}
	return ""
}

// debugSettings are the keys of GODEBUG that lower security, each with the values
// that do; none means every value. All keys of internal/godebugs/table.go of Go
// 1.26 were looked at, see decided in the tests. Those that older and newer
// versions of Go know stand here also: a binary is built by either.
var debugSettings = map[string][]string{
	"rsa1024min":           {"0"}, // RSA-512 is accepted from servers
	"x509sha1":             {"1"}, // SHA-1 in chains (until Go 1.23)
	"x509negativeserial":   {"1"}, // RFC 5280, section 4.1.2.2
	"x509usepolicies":      {"0"}, // policy constraints are not looked at
	"x509rsacrt":           {"0"}, // a private key whose parts contradict each other is taken
	"tlsrsakex":            {"1"}, // no forward secrecy
	"tls3des":              {"1"},
	"tls10server":          {"1"},
	"tlssha1":              {"1"}, // SHA-1 signatures in TLS 1.2 handshakes
	"tlsunsafeekm":         {"1"}, // exported keys that do not name their connection (RFC 7627)
	"tlsmlkem":             {"0"}, // no post-quantum key exchange
	"tlssecpmlkem":         {"0"},
	"tlskyber":             {"0"}, // its name in Go 1.23
	"tlsmaxrsasize":        nil,   // a bound on what a stranger's key may cost us
	"fips140":              {"off"},
	"fips140ems":           {"0"},      // in FIPS mode, no extended master secret
	"cryptocustomrand":     {"1"},      // random numbers from where a caller says
	"http2debug":           {"1", "2"}, // prints headers
	"httplaxcontentlength": {"1"},      // request smuggling
	"multipartmaxheaders":  nil,        // bounds, as tlsmaxrsasize
	"multipartmaxparts":    nil,
	"urlmaxqueryparams":    nil,
	"httpcookiemaxnum":     nil,
	"execerrdot":           {"0"}, // programs are run from the current folder
}

// lowering gives the settings of one GODEBUG value that lower security. As in the
// runtime, the last of several settings of one key holds, and what follows a # is
// a pattern for bisect(1); a setting that a later one takes back is no concern.
func lowering(godebug string) []string {
	settings := strings.Split(godebug, ",")
	slices.Reverse(settings)
	seen := map[string]bool{}
	var found []string
	for _, s := range settings {
		key, value, ok := strings.Cut(s, "=")
		if !ok || seen[key] {
			continue
		}
		seen[key] = true
		value, _, _ = strings.Cut(value, "#")
		bad, known := debugSettings[key]
		if known && value != "" && (bad == nil || slices.Contains(bad, value)) {
			found = append(found, key+"="+value)
		}
	}
	slices.Reverse(found)
	return found
}
