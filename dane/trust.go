package dane

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// TrustAnchors are the keys that proofs end in, by zone; mostly the root's.
type TrustAnchors struct {
	ds   map[string][]*dns.DS
	keys map[string][]*dns.DNSKEY
	sum  [sha256.Size]byte // of the file
}

// same says whether both are of one file, or there are none.
func (t *TrustAnchors) same(o *TrustAnchors) bool {
	return t == o || t != nil && o != nil && t.sum == o.sum
}

// ParseAnchors reads DS and DNSKEY records as in a zone file, which is what unbound's
// root.key and IANA's root-anchors in that form are. Keys that unbound's notes (RFC
// 5011) say are not valid yet, or not any more, are left out.
func ParseAnchors(file string, data []byte) (*TrustAnchors, error) {
	t := &TrustAnchors{make(map[string][]*dns.DS), make(map[string][]*dns.DNSKEY), sha256.Sum256(data)}
	n := 0
	z := dns.NewZoneParser(bytes.NewReader(inForce(data)), ".", file)
	z.SetDefaultTTL(0)
	for rr, ok := z.Next(); ok; rr, ok = z.Next() {
		name := dns.CanonicalName(rr.Header().Name)
		switch rr := rr.(type) {
		case *dns.DS:
			if !strongDigest(rr.DigestType) || !supported(rr.Algorithm) {
				return nil, fmt.Errorf("%s: the DS record of %q with key tag %d has an algorithm that is not taken", file, name, rr.KeyTag)
			}
			t.ds[name] = append(t.ds[name], rr)
		case *dns.DNSKEY:
			if rr.Flags&dns.ZONE == 0 || rr.Flags&dns.REVOKE != 0 || !supported(rr.Algorithm) {
				return nil, fmt.Errorf("%s: the DNSKEY record of %q with key tag %d can be no trust anchor: it is revoked, no zone's, or of an algorithm that is not taken", file, name, rr.KeyTag())
			}
			t.keys[name] = append(t.keys[name], rr)
		default:
			return nil, fmt.Errorf("%s: a trust anchor is a DS or DNSKEY record, not %s", file, dns.TypeToString[rr.Header().Rrtype])
		}
		n++
	}
	if err := z.Err(); err != nil {
		return nil, fmt.Errorf("reading the trust anchors of DNSSEC: %w", err)
	}
	if n == 0 {
		return nil, errors.New(file + " has no DS or DNSKEY record; unbound-anchor makes such a file")
	}
	return t, nil
}

// inForce drops the lines whose state is noted as none of VALID and MISSING.
func inForce(data []byte) []byte {
	var out []byte
	for line := range bytes.Lines(data) {
		_, state, noted := bytes.Cut(line, []byte(";;state="))
		if noted && !bytes.HasPrefix(state, []byte("2")) && !bytes.HasPrefix(state, []byte("3")) {
			continue
		}
		out = append(out, line...)
	}
	return out
}

// closest is the zone of the anchor that proofs of records of that type at name end in.
func (t *TrustAnchors) closest(name string, qtype uint16) (zone string, ok bool) {
	for labels := dns.CountLabel(name); labels >= 0; labels-- {
		zone = suffix(name, labels)
		if qtype == dns.TypeDS && zone == name { // which is the parent's
			continue
		}
		if len(t.ds[zone]) > 0 || len(t.keys[zone]) > 0 {
			return zone, true
		}
	}
	return "", false
}

// keyCache remembers the proved keys of zones.
type keyCache struct {
	mu    sync.Mutex
	zones map[string]zoneKeys
}

type zoneKeys struct {
	keys []*dns.DNSKEY
	holds
}

func (c *keyCache) get(zone string, now time.Time) (zoneKeys, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	z, ok := c.zones[zone]
	return z, ok && z.at(now)
}

func (c *keyCache) keep(zone string, keys []*dns.DNSKEY, h holds) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.zones == nil || len(c.zones) >= maxZones {
		c.zones = make(map[string]zoneKeys)
	}
	c.zones[zone] = zoneKeys{keys, h}
}

// ResolvConf gives the servers of a resolv.conf(5).
func ResolvConf(data []byte) []Server {
	var servers []Server
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "nameserver" && len(servers) < 3 { // as the C library
			servers = append(servers, Server{Addr: joinPort(f[1])})
		}
	}
	return servers
}
