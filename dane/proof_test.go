package dane_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"sallyport/dane"
)

// forge is a DNS whose every record and signature a test can bend. It has the root,
// test. and h.test., each with one key, and answers whatever is asked.
type forge struct {
	t       *testing.T
	now     time.Time
	keys    map[string]*dns.DNSKEY
	signers map[string]crypto.Signer
	sets    map[string][]dns.RR // by name and type, with their signatures
	asked   int
}

var zones = []string{".", "test.", "h.test."}

const forgedTLSA = "_443._tcp.h.test. 300 IN TLSA 3 1 1 " + digest

func newForge(t *testing.T) *forge {
	f := &forge{t: t, now: time.Now(), keys: map[string]*dns.DNSKEY{}, signers: map[string]crypto.Signer{}, sets: map[string][]dns.RR{}}
	for _, z := range zones {
		f.zone(z, 257)
	}
	for i, z := range zones {
		f.put(z, f.keys[z])
		if i > 0 {
			f.put(zones[i-1], f.keys[z].ToDS(dns.SHA256))
		}
	}
	f.put("h.test.", rrs(t, forgedTLSA)...)
	f.put("h.test.", rrs(t, "h.test. 300 IN A 192.0.2.1")...)
	return f
}

func (f *forge) zone(z string, flags uint16) *dns.DNSKEY {
	k := &dns.DNSKEY{Hdr: dns.RR_Header{Name: z, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300}, Flags: flags, Protocol: 3, Algorithm: dns.ECDSAP256SHA256}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	xy, _ := key.PublicKey.Bytes()
	k.PublicKey = b64(xy[1:])
	f.keys[z], f.signers[z] = k, key
	return k
}

func key(name string, qtype uint16) string { return fmt.Sprintf("%s %d", name, qtype) }

// put signs a set by a zone, and changes the signature before it is made by bend.
func (f *forge) put(zone string, set ...dns.RR) { f.bend(nil, zone, set...) }

func (f *forge) bend(change func(*dns.RRSIG), zone string, set ...dns.RR) {
	h := set[0].Header()
	f.sets[key(h.Name, h.Rrtype)] = append(slices.Clone(set), f.sign(change, zone, set...))
}

func (f *forge) sign(change func(*dns.RRSIG), zone string, set ...dns.RR) *dns.RRSIG {
	k := f.keys[zone]
	sig := &dns.RRSIG{
		Inception: uint32(f.now.Add(-time.Hour).Unix()), Expiration: uint32(f.now.Add(time.Hour).Unix()),
		KeyTag: k.KeyTag(), SignerName: zone, Algorithm: k.Algorithm,
	}
	if change != nil {
		change(sig)
	}
	if err := sig.Sign(f.signers[zone], set); err != nil {
		f.t.Fatalf("signing %v: %v", set, err)
	}
	return sig
}

func (f *forge) answer(q *dns.Msg) *dns.Msg {
	f.asked++
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	m.Answer = f.sets[key(dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype)]
	return m
}

func (f *forge) anchors() *dane.TrustAnchors {
	a, err := dane.ParseAnchors("root", []byte(f.keys["."].ToDS(dns.SHA256).String()))
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func TestForgedProofs(t *testing.T) {
	tlsa := func(f *forge) []dns.RR { return rrs(f.t, forgedTLSA) }
	for name, c := range map[string]struct {
		bend  func(f *forge)
		state dane.State
		says  string
	}{
		"as it should be": {func(*forge) {}, dane.Secure, ""},
		"no signature":    {func(f *forge) { f.sets[key("_443._tcp.h.test.", dns.TypeTLSA)] = tlsa(f) }, dane.Bogus, "no signature"},
		"another record":  {func(f *forge) { f.sets[key("_443._tcp.h.test.", dns.TypeTLSA)][0].(*dns.TLSA).Usage = 2 }, dane.Bogus, "no key of"},
		"one record more": {func(f *forge) {
			k := key("_443._tcp.h.test.", dns.TypeTLSA)
			f.sets[k] = append(f.sets[k], rrs(f.t, "_443._tcp.h.test. 300 IN TLSA 3 1 1 "+strings.Repeat("00", 32))...)
		}, dane.Bogus, "no key of"},
		"expired": {func(f *forge) {
			f.bend(func(s *dns.RRSIG) { s.Expiration = uint32(f.now.Add(-time.Second).Unix()) }, "h.test.", tlsa(f)...)
		}, dane.Bogus, "expired"},
		"not valid yet": {func(f *forge) {
			f.bend(func(s *dns.RRSIG) { s.Inception = uint32(f.now.Add(time.Minute).Unix()) }, "h.test.", tlsa(f)...)
		}, dane.Bogus, "not valid before"},
		"signed by the parent": {func(f *forge) { f.put("test.", tlsa(f)...) }, dane.Secure, ""}, // as if h.test. was no zone
		"signed by a stranger": {func(f *forge) {
			f.zone("evil.test.", 257)
			f.put("test.", f.keys["evil.test."].ToDS(dns.SHA256))
			f.put("evil.test.", f.keys["evil.test."])
			f.put("evil.test.", tlsa(f)...)
		}, dane.Bogus, "not in"},
		"signed by a like name": {func(f *forge) { // a suffix in letters, not in labels
			f.zone("est.", 257)
			f.put(".", f.keys["est."].ToDS(dns.SHA256))
			f.put("est.", f.keys["est."])
			f.put("est.", tlsa(f)...)
		}, dane.Bogus, "not in"},
		"signed by a child": {func(f *forge) {
			f.zone("x._443._tcp.h.test.", 257)
			f.put("x._443._tcp.h.test.", tlsa(f)...)
		}, dane.Bogus, "not in"},
		"from a wildcard": {func(f *forge) {
			wild := rrs(f.t, strings.Replace(forgedTLSA, "_443", "*", 1))
			sig := f.sign(nil, "h.test.", wild...)
			sig.Hdr.Name = "_443._tcp.h.test."
			f.sets[key("_443._tcp.h.test.", dns.TypeTLSA)] = append(tlsa(f), sig)
		}, dane.Bogus, "no name closer to it"},
		"more labels than the name": {func(f *forge) {
			sig := f.sign(nil, "h.test.", tlsa(f)...)
			sig.Labels = 9
			f.sets[key("_443._tcp.h.test.", dns.TypeTLSA)] = append(tlsa(f), sig)
		}, dane.Bogus, "longer name"},
		"a key that is no zone's": {func(f *forge) {
			f.keys["h.test."].Flags = 1
			f.put("test.", f.keys["h.test."].ToDS(dns.SHA256))
			f.put("h.test.", f.keys["h.test."])
			f.put("h.test.", tlsa(f)...)
		}, dane.Bogus, "not signed by one"},
		"a revoked key": {func(f *forge) {
			f.keys["h.test."].Flags |= dns.REVOKE
			f.put("test.", f.keys["h.test."].ToDS(dns.SHA256))
			f.put("h.test.", f.keys["h.test."])
			f.put("h.test.", tlsa(f)...)
		}, dane.Bogus, "not signed by one"},
		"keys of somebody else": {func(f *forge) {
			f.zone("h.test.", 257)
			f.put("h.test.", f.keys["h.test."])
			f.put("h.test.", tlsa(f)...)
		}, dane.Bogus, "not signed by one"},
		"a key smuggled in": { // beside the true one, signed by itself
			func(f *forge) {
				true1 := f.keys["h.test."]
				mine := f.zone("h.test.", 256)
				f.put("h.test.", true1, mine)
				f.put("h.test.", tlsa(f)...)
			}, dane.Bogus, "not signed by one",
		},
		"no DS record": {func(f *forge) { delete(f.sets, key("h.test.", dns.TypeDS)) }, dane.Bogus, "nothing proves"},
		"DS by SHA-1":  {func(f *forge) { f.put("test.", f.keys["h.test."].ToDS(dns.SHA1)) }, dane.Insecure, ""},
		"DS by SHA-1, false, and by SHA-256": {func(f *forge) {
			sha1 := f.keys["h.test."].ToDS(dns.SHA1)
			sha1.Digest = strings.Repeat("0", 40)
			f.put("test.", sha1, f.keys["h.test."].ToDS(dns.SHA256))
		}, dane.Secure, ""},
		"DS by SHA-384":           {func(f *forge) { f.put("test.", f.keys["h.test."].ToDS(dns.SHA384)) }, dane.Secure, ""},
		"DS signed by the zone":   {func(f *forge) { f.put("h.test.", f.keys["h.test."].ToDS(dns.SHA256)) }, dane.Bogus, "by the zone itself"},
		"DS without a signature":  {func(f *forge) { k := key("h.test.", dns.TypeDS); f.sets[k] = f.sets[k][:1] }, dane.Bogus, "no signature"},
		"keys without signatures": {func(f *forge) { k := key("test.", dns.TypeDNSKEY); f.sets[k] = f.sets[k][:1] }, dane.Bogus, "not signed by one"},
		"another root": {func(f *forge) {
			f.zone(".", 257)
			f.put(".", f.keys["."])
			f.put(".", f.keys["test."].ToDS(dns.SHA256))
		}, dane.Bogus, "not signed by one"},
		"an algorithm that is not taken": {func(f *forge) {
			sig := f.sign(nil, "h.test.", tlsa(f)...)
			sig.Algorithm = dns.RSASHA1
			f.sets[key("_443._tcp.h.test.", dns.TypeTLSA)] = append(tlsa(f), sig)
		}, dane.Bogus, "algorithm 5"},
		"more signatures than are looked at": { // each of one tag, to be tried (CVE-2023-50387)
			func(f *forge) {
				k := key("_443._tcp.h.test.", dns.TypeTLSA)
				good := f.sets[k][1].(*dns.RRSIG)
				f.sets[k] = tlsa(f)
				for i := range 8 {
					bad := *good
					bad.Expiration -= uint32(i + 1)
					f.sets[k] = append(f.sets[k], &bad)
				}
				f.sets[k] = append(f.sets[k], good)
			}, dane.Bogus, "no key of",
		},
		"more keys of one tag than are tried": {func(f *forge) {
			real := f.keys["h.test."]
			raw, _ := base64.StdEncoding.DecodeString(real.PublicKey)
			set := []dns.RR{}
			for i := range 4 { // the tag is a sum, whatever the order
				other, bytes := *real, slices.Clone(raw)
				bytes[0], bytes[2+2*i], bytes[1], bytes[3+2*i] = raw[2+2*i], raw[0], raw[3+2*i], raw[1]
				other.PublicKey = b64(bytes)
				set = append(set, &other)
			}
			f.put("h.test.", append(set, real)...)
		}, dane.Bogus, "no key of"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newForge(t)
				root := f.anchors()
				c.bend(f)
				r := resolver(t, dane.Options{
					Servers: []dane.Server{{Addr: "192.0.2.1:53"}}, Anchors: root, Dial: pipeDial(t, f.answer),
				})
				a, err := r.Lookup(t.Context(), "_443._tcp.h.test", dane.TLSA)
				if c.state == dane.Bogus || c.state == dane.Failed {
					var e *dane.Error
					if !errors.As(err, &e) || e.State != c.state || !strings.Contains(err.Error(), c.says) {
						t.Fatalf("%+v, %v; want %s, %q", a, err, c.state, c.says)
					}
					return
				}
				if err != nil || a.State != c.state || len(a.TLSA) == 0 {
					t.Fatalf("%+v, %v; want %s", a, err, c.state)
				}
			})
		})
	}
}

// Keys are proved once, and nothing is believed for longer than its signature holds.
func TestProofIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newForge(t)
		f.bend(func(s *dns.RRSIG) { s.Expiration = uint32(f.now.Add(20 * time.Second).Unix()) }, "h.test.", rrs(t, forgedTLSA)...)
		r := resolver(t, dane.Options{Servers: []dane.Server{{Addr: "192.0.2.1:53"}}, Anchors: f.anchors(), Dial: pipeDial(t, f.answer)})
		look := func(name string, typ dane.Type) error {
			_, err := r.Lookup(t.Context(), name, typ)
			return err
		}
		if err := look("_443._tcp.h.test", dane.TLSA); err != nil || f.asked != 6 { // TLSA, three DNSKEY, two DS
			t.Errorf("%v after %d questions", err, f.asked)
		}
		if err := look("h.test", dane.A); err != nil || f.asked != 7 {
			t.Errorf("%v after %d questions", err, f.asked)
		}
		time.Sleep(19 * time.Second)
		if err := look("_443._tcp.h.test", dane.TLSA); err != nil || f.asked != 7 {
			t.Errorf("%v after %d questions", err, f.asked)
		}
		time.Sleep(2 * time.Second)
		if err := look("_443._tcp.h.test", dane.TLSA); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after its signature is over: %v", err)
		}
	})
}

// Nobody's word stands in for a proof.
func TestProofAgainstAD(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newForge(t)
		f.sets[key("_443._tcp.h.test.", dns.TypeTLSA)] = rrs(t, forgedTLSA)
		r := resolver(t, dane.Options{
			Servers: []dane.Server{{Addr: "192.0.2.1:53", Trusted: true}}, Anchors: f.anchors(),
			Dial: pipeDial(t, func(q *dns.Msg) *dns.Msg {
				m := f.answer(q)
				m.AuthenticatedData = true
				return m
			}),
		})
		a, err := r.Lookup(t.Context(), "_443._tcp.h.test", dane.TLSA)
		if err == nil || !strings.Contains(err.Error(), "no signature") {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

func TestParseAnchors(t *testing.T) {
	const (
		ds   = ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n"
		ksk  = ". 86400 IN DNSKEY 257 3 8 AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixHlFlExOLAJr5emLvN7SWXgnLh4+B5xQlNVz8Og8kvArMtNROxVQuCaSnIDdD5LKyWbRd2n9WGe2R8PzgCmr3EgVLrjyBxWezF0jLHwVN8efS3rCj/EWgvIWgb9tarpVUDK/b58Da+sqqls3eNbuv7pr+eoZG+SrDK6nWeL3c6H5Apxz7LjVc1uTIdsIXxuOLYA4/ilBmSVIzuDWfdRUfhHdY6+cn8HFRm+2hM8AnXGXws9555KrUB5qihylGa8subX2Nn6UwNR1AkUTV74bU= ;{id = 20326 (ksk), size = 2048b} ;;state=%s [ X ] ;;count=0\n"
		what = "; autotrust trust anchor file\n;;id: . 1\n"
	)
	for _, c := range []struct{ text, says string }{
		{ds, ""},
		{what + fmt.Sprintf(ksk, "2"), ""},
		{fmt.Sprintf(ksk, "3"), ""},
		{fmt.Sprintf(ksk, "1"), "has no DS or DNSKEY"},
		{fmt.Sprintf(ksk, "4"), "has no DS or DNSKEY"},
		{"", "has no DS or DNSKEY"},
		{". IN A 192.0.2.1\n", "not A"},
		{". IN DS 20326 8 1 E06D44B80B8F1D39A95C0B0D7C65D08458E88040\n", "not taken"},
		{strings.Replace(fmt.Sprintf(ksk, "2"), "257", "385", 1), "can be no trust anchor"},
		{"nonsense\n", "reading the trust anchors"},
		{"$INCLUDE /etc/passwd\n", "reading the trust anchors"},
	} {
		_, err := dane.ParseAnchors("root.key", []byte(c.text))
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%.60q: %v, want %q", c.text, err, c.says)
		}
	}
}
