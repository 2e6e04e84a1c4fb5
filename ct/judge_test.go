package ct_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/ct"
	"sallyport/internal/ca"
)

var (
	now  = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	then = now.Add(-24 * time.Hour)
)

const day = 24 * time.Hour

// rig has a log of each kind.
type rig struct {
	t                                       *testing.T
	root                                    *ca.Tester
	a, b, c, tiled, rsa                     *ca.Log // usable, of operators A, B, C, D, E
	a2, retired, pending, rejected, foreign *ca.Log
	all                                     []*ca.Log
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, root: ca.TestAt(t, now)}
	log := func(name, operator string) *ca.Log {
		l := ca.TestLog(t, name, operator)
		r.all = append(r.all, l)
		return l
	}
	r.a, r.b, r.c, r.a2 = log("Alder", "A"), log("Birch", "B"), log("Cedar", "C"), log("Aspen", "A")
	r.tiled, r.rsa = log("Tile", "D"), log("Elm", "E")
	r.tiled.Tiled, r.tiled.Extensions = true, []byte{0, 0, 5, 0, 0, 0, 1, 2} // leaf_index (static-ct-api)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	r.rsa.Key = key
	r.retired, r.pending, r.rejected = log("Rowan", "F"), log("Pine", "G"), log("Reed", "H")
	r.retired.State, r.retired.Since = "retired", now.Add(-10*day)
	r.pending.State, r.rejected.State = "pending", "rejected"
	r.foreign = ca.TestLog(t, "nobody's", "X")
	return r
}

func (r *rig) logs(at time.Time) *ct.Logs {
	r.t.Helper()
	list, err := ct.ParseList(ca.LogList(at, r.all...))
	if err != nil {
		r.t.Fatal(err)
	}
	logs := new(ct.Logs)
	logs.Set(list)
	return logs
}

// of makes promises of yesterday.
func of(logs ...*ca.Log) []ca.Promise {
	var list []ca.Promise
	for _, l := range logs {
		list = append(list, ca.Promise{Log: l, At: then})
	}
	return list
}

func (r *rig) leaf(promises []ca.Promise, opts ...ca.Option) *x509.Certificate {
	r.t.Helper()
	if promises != nil {
		opts = append(opts, ca.Embed(r.root.Cert, promises...))
	}
	return r.root.Leaf([]string{"a.test"}, opts...).Cert
}

func (r *rig) shown(leaf *x509.Certificate) *ct.Evidence {
	return &ct.Evidence{Leaf: leaf, Issuers: [][32]byte{sha256.Sum256(r.root.Cert.RawSubjectPublicKeyInfo)}}
}

func (r *rig) handshake(leaf *x509.Certificate, logs ...*ca.Log) *ct.Evidence {
	e := r.shown(leaf)
	for _, l := range logs {
		e.Handshake = append(e.Handshake, r.sct(l, leaf, then))
	}
	return e
}

func (r *rig) sct(l *ca.Log, leaf *x509.Certificate, at time.Time) []byte {
	r.t.Helper()
	b, err := l.SCT(at, leaf.Raw)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func tampered(p ca.Promise, f func([]byte) []byte) ca.Promise { p.Tamper = f; return p }

func at(p ca.Promise, t time.Time) ca.Promise { p.At = t; return p }

func flip(i int) func([]byte) []byte {
	return func(b []byte) []byte { b[(i+len(b))%len(b)] ^= 1; return b }
}

// IC-46, variant by variant.
func TestJudge(t *testing.T) {
	r := newRig(t)
	logs := r.logs(now.Add(-day))
	stranger := ca.TestAt(t, now).Cert
	long := ca.Validity(181 * day)
	plain := r.leaf(nil)
	other := r.leaf(nil)
	one := func(l *ca.Log) ca.Promise { return of(l)[0] }
	for _, c := range []struct {
		name string
		e    *ct.Evidence
		want ct.Outcome
		says string // part of the text
	}{
		{"none", r.shown(plain), ct.Missing, "no SCT"},
		{"two", r.shown(r.leaf(of(r.a, r.b))), ct.Good, `2 SCTs in the certificate, of "Alder" (A) and "Birch" (B)`},
		{"of a log with tiles, and of one with an RSA key", r.shown(r.leaf(of(r.tiled, r.rsa))), ct.Good, `"Tile" (D) and "Elm" (E)`},
		{"one", r.shown(r.leaf(of(r.a))), ct.TooFew, `SCTs of 2 logs are needed in the certificate, and those of 1 count: of "Alder" (A)`},
		{"the same log twice", r.shown(r.leaf(of(r.a, r.a))), ct.TooFew, "those of 1 count"},
		{"one operator", r.shown(r.leaf(of(r.a, r.a2))), ct.TooFew, "all of one operator"},
		{"two for 181 days", r.shown(r.leaf(of(r.a, r.b), long)), ct.TooFew, "SCTs of 3 logs are needed"},
		{"three for 181 days", r.shown(r.leaf(of(r.a, r.b, r.a2), long)), ct.Good, "3 SCTs"},
		{"a retired log, of before", r.shown(r.leaf([]ca.Promise{one(r.a), at(one(r.retired), now.Add(-11*day))})), ct.Good, "Rowan"},
		{"a retired log, of after", r.shown(r.leaf([]ca.Promise{one(r.a), at(one(r.retired), now.Add(-9*day))})), ct.Invalid, `"Rowan" (F): an SCT of`},
		{"none of a log in use", r.shown(r.leaf([]ca.Promise{at(one(r.retired), now.Add(-11*day)), at(one(r.retired), now.Add(-12*day))})), ct.TooFew, "those of 1 count"},
		{"an unknown log", r.shown(r.leaf(of(r.a, r.foreign))), ct.Invalid, fmt.Sprintf("no list has (%x", r.foreign.ID())[:20]},
		{"an unknown log beside two", r.shown(r.leaf(of(r.a, r.foreign, r.b))), ct.Good, "2 SCTs"},
		{"a pending log", r.shown(r.leaf(of(r.a, r.pending))), ct.Invalid, `"Pine" (G): the log is pending`},
		{"a rejected log", r.shown(r.leaf(of(r.a, r.rejected))), ct.Invalid, `"Reed" (H): the log is rejected`},
		{"the future", r.shown(r.leaf([]ca.Promise{one(r.a), at(one(r.b), now.Add(time.Hour))})), ct.Invalid, `"Birch" (B): an SCT of the future (2026-06-01T13:00:00Z)`},
		{"a bad signature", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.b), flip(-1))})), ct.Invalid, `"Birch" (B): its signature does not verify`},
		{"a bad signature by RSA", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.rsa), flip(-1))})), ct.Invalid, `"Elm" (E): its signature does not verify`},
		{"another time than was signed", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.b), flip(40))})), ct.Invalid, `"Birch" (B): its signature`},
		{"extensions that were not signed", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.tiled), flip(45))})), ct.Invalid, `"Tile" (D): its signature`},
		{"another algorithm than the key's", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.b), func(b []byte) []byte { b[44] = 1; return b })})), ct.Invalid, "algorithm 0x0401, and the log's key is for ECDSA"},
		{"MD5", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.rsa), func(b []byte) []byte { b[43] = 1; return b })})), ct.Invalid, "algorithm 0x0101"},
		{"another issuer", r.shown(r.leaf([]ca.Promise{one(r.a), {Log: r.b, At: then, Issuer: stranger}})), ct.Invalid, `"Birch" (B): its signature`},
		{"version 2", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.b), func(b []byte) []byte { b[0] = 1; return b })})), ct.Invalid, "version that is not known"},
		{"cut short", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.b), func(b []byte) []byte { return b[:40] })})), ct.Invalid, "cannot be read (40 bytes)"},
		{"past its end", r.shown(r.leaf([]ca.Promise{one(r.a), tampered(one(r.b), func(b []byte) []byte { return append(b, 0) })})), ct.Invalid, "cannot be read"},
		{"in the handshake", r.handshake(plain, r.a, r.b), ct.Good, "2 SCTs in the handshake"},
		{"in the handshake, for another certificate", &ct.Evidence{Leaf: plain, Handshake: r.handshake(other, r.a, r.b).Handshake}, ct.Invalid, "is for another certificate"},
		{"in the handshake, one", r.handshake(plain, r.a), ct.TooFew, "needed in the handshake"},
		{"in the handshake, one operator", r.handshake(plain, r.a, r.a2), ct.TooFew, "all of one operator"},
		{"in the handshake, of a retired log", r.handshake(plain, r.a, r.retired), ct.Invalid, "the log is retired since"},
		{"one here and one there", r.handshake(r.leaf(of(r.a)), r.b), ct.TooFew, "those of 1 count"},
		{"the certificate's, in the handshake", &ct.Evidence{Leaf: plain, Handshake: embeddedOf(t, r.leaf(of(r.a, r.b)))}, ct.Invalid, "its signature"},
		{"the handshake's, in the certificate", r.shown(r.leaf(nil, withList(ca.SCTList(r.handshake(plain, r.a, r.b).Handshake...)))), ct.Invalid, "its signature"},
		{"a list that is none", r.shown(r.leaf(nil, withList([]byte{0, 9, 1}))), ct.Invalid, "list of SCTs that cannot be read"},
		{"an empty list", r.shown(r.leaf(nil, withList([]byte{0, 0}))), ct.Invalid, "list of SCTs that cannot be read"},
		{"too many", r.handshake(plain, manyOf(r.a, 33)...), ct.Invalid, "more than 32 SCTs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range 2 { // the second time out of memory
				v := logs.Judge(c.e, now)
				if v.Outcome != c.want || !strings.Contains(v.Text, c.says) {
					t.Errorf("time %d: outcome %d, want %d: %q, want %q in it", i+1, v.Outcome, c.want, v.Text, c.says)
				}
			}
		})
	}
}

func manyOf(l *ca.Log, n int) (list []*ca.Log) {
	for range n {
		list = append(list, l)
	}
	return list
}

func withList(list []byte) ca.Option {
	return ca.TBS(func(t *ca.TBSCertificate) { t.Extensions = append(t.Extensions, ca.SCTExtension(list)) })
}

func embeddedOf(t *testing.T, c *x509.Certificate) [][]byte {
	t.Helper()
	for _, e := range c.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}) {
			var list []byte
			if _, err := asn1.Unmarshal(e.Value, &list); err != nil {
				t.Fatal(err)
			}
			scts, err := ct.SplitList(list)
			if err != nil {
				t.Fatal(err)
			}
			return scts
		}
	}
	t.Fatal("no SCTs")
	return nil
}

// Where the extension stands among others, and what else the certificate is,
// changes nothing.
func TestSCTsAmongOtherExtensions(t *testing.T) {
	r := newRig(t)
	logs := r.logs(now)
	extra := func(c *x509.Certificate) {
		for i := range 20 {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, i}, Value: make([]byte, 30*i)})
		}
	}
	for name, opts := range map[string][]ca.Option{
		"many":            {ca.Template(extra), ca.SharedRSA()},
		"none but its":    {ca.NoSAN(), ca.EKU(), ca.KeyUsage(0), ca.Template(func(c *x509.Certificate) { c.BasicConstraintsValid = false })},
		"a large subject": {ca.OU(strings.Repeat("x", 300), strings.Repeat("y", 70000))},
	} {
		if v := logs.Judge(r.shown(r.leaf(of(r.a, r.b), opts...)), now); v.Outcome != ct.Good {
			t.Errorf("%s: %s", name, v.Text)
		}
	}
}

// What is remembered of signatures is judged anew by the clock, and forgotten
// with the list.
func TestTimeMovesOn(t *testing.T) {
	r := newRig(t)
	e := r.shown(r.leaf([]ca.Promise{of(r.a)[0], at(of(r.b)[0], now.Add(time.Hour))}))
	logs := r.logs(now)
	if v := logs.Judge(e, now); v.Outcome != ct.Invalid {
		t.Error(v.Text)
	}
	if v := logs.Judge(e, now.Add(2*time.Hour)); v.Outcome != ct.Good {
		t.Error(v.Text)
	}
	r.b.State = "rejected"
	list, err := ct.ParseList(ca.LogList(now, r.all...))
	if err != nil {
		t.Fatal(err)
	}
	logs.Set(list)
	if v := logs.Judge(e, now.Add(2*time.Hour)); v.Outcome != ct.Invalid {
		t.Error(v.Text)
	}
}

func TestOldListEnforcesNothing(t *testing.T) {
	r := newRig(t)
	bad := r.shown(r.leaf(nil))
	if v := r.logs(now.Add(-70*day)).Judge(bad, now); v.Outcome != ct.Missing {
		t.Errorf("after 70 days: %v %s", v.Outcome, v.Text)
	}
	v := r.logs(now.Add(-70*day-time.Second)).Judge(bad, now)
	if v.Outcome != ct.Old || !strings.Contains(v.Text, "70 days old; it would be: no SCT") {
		t.Errorf("after more: %v %s", v.Outcome, v.Text)
	}
	if v := new(ct.Logs).Judge(bad, now); v.Outcome != ct.NoList {
		t.Error(v.Text)
	}
}

func TestOldestOfSeveralLists(t *testing.T) {
	r := newRig(t)
	parse := func(at time.Time, logs ...*ca.Log) *ct.List {
		l, err := ct.ParseList(ca.LogList(at, logs...))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	e := r.shown(r.leaf(of(r.a, r.b)))
	logs := new(ct.Logs)
	logs.Set(parse(now, r.a), parse(now.Add(-day), r.b))
	if v := logs.Judge(e, now); v.Outcome != ct.Good {
		t.Error(v.Text)
	}
	r.a.State = "rejected"
	logs.Set(parse(now, r.b), parse(now.Add(-71*day), r.a))
	if v := logs.Judge(e, now); v.Outcome != ct.Old {
		t.Error(v.Text)
	}
	if logs.Len() != 2 || !logs.Oldest().Equal(now.Add(-71*day)) {
		t.Error(logs.Len(), logs.Oldest())
	}
}

func TestPreviousOperators(t *testing.T) {
	r := newRig(t)
	r.b.JSON = map[string]any{"previous_operators": []any{
		map[string]any{"name": "Z", "end_time": now.Add(-20 * day)},
		map[string]any{"name": "A", "end_time": now.Add(-2 * day)},
	}}
	logs := r.logs(now)
	for _, c := range []struct {
		when time.Time
		want ct.Outcome
	}{{now.Add(-day), ct.Good}, {now.Add(-3 * day), ct.TooFew}, {now.Add(-21 * day), ct.Good}} {
		if v := logs.Judge(r.shown(r.leaf([]ca.Promise{of(r.a)[0], at(of(r.b)[0], c.when)})), now); v.Outcome != c.want {
			t.Errorf("%s: %v %s", c.when, v.Outcome, v.Text)
		}
	}
}

func TestTemporalInterval(t *testing.T) {
	r := newRig(t)
	leaf := r.leaf(of(r.a, r.b))
	set := func(start, end time.Time) {
		r.b.JSON = map[string]any{"temporal_interval": map[string]any{"start_inclusive": start, "end_exclusive": end}}
	}
	for _, c := range []struct {
		start, end time.Time
		want       ct.Outcome
	}{
		{leaf.NotAfter, leaf.NotAfter.Add(1), ct.Good},
		{leaf.NotAfter.Add(-day), leaf.NotAfter, ct.Invalid},
		{leaf.NotAfter.Add(1), leaf.NotAfter.Add(day), ct.Invalid},
	} {
		set(c.start, c.end)
		if v := r.logs(now).Judge(r.shown(leaf), now); v.Outcome != c.want {
			t.Errorf("%s to %s: %v %s", c.start, c.end, v.Outcome, v.Text)
		}
	}
}

func TestLogsThatCountForNothing(t *testing.T) {
	r := newRig(t)
	r.b.JSON = map[string]any{"log_type": "test"}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.c.Key = key
	logs := r.logs(now)
	for says, l := range map[string]*ca.Log{"a log for tests": r.b, "an ECDSA key on P-384": r.c} {
		if v := logs.Judge(r.shown(r.leaf(of(r.a, l))), now); v.Outcome != ct.Invalid || !strings.Contains(v.Text, says) {
			t.Errorf("%v %s", v.Outcome, v.Text)
		}
	}
}

func TestIssuerIsOneOfSeveral(t *testing.T) {
	r := newRig(t)
	e := r.shown(r.leaf(of(r.a, r.b)))
	e.Issuers = append([][32]byte{{1}}, e.Issuers...)
	if v := r.logs(now).Judge(e, now); v.Outcome != ct.Good {
		t.Error(v.Text)
	}
	e.Issuers = nil
	if v := r.logs(now).Judge(e, now); v.Outcome != ct.Invalid || !strings.Contains(v.Text, "issuer's key") {
		t.Error(v.Text)
	}
}

// SCTs in an OCSP response are verified and named, and count for nothing, as in
// Chrome since version 148.
func TestStapleCountsForNothing(t *testing.T) {
	r := newRig(t)
	plain := r.leaf(nil)
	staple := func(list []byte) []byte {
		value, err := asn1.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		b, err := ocsp.CreateResponse(r.root.Cert, r.root.Cert, ocsp.Response{
			Status: ocsp.Good, SerialNumber: plain.SerialNumber, ThisUpdate: now.Add(-day), NextUpdate: now.Add(day),
			ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 5}, Value: value}},
		}, r.root.Key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	logs := r.logs(now)
	for _, c := range []struct {
		staple []byte
		want   ct.Outcome
		says   string
	}{
		{staple(ca.SCTList(r.sct(r.a, plain, then), r.sct(r.b, plain, then))), ct.TooFew, `not counted: "Alder" (A): in an OCSP response; "Birch" (B)`},
		{staple(ca.SCTList(r.sct(r.a, r.leaf(nil), then))), ct.Invalid, `"Alder" (A): its signature`},
		{staple([]byte{7}), ct.Invalid, "cannot be read (1 bytes), in the OCSP staple"},
		{[]byte("no OCSP response"), ct.Missing, "no SCT"},
	} {
		e := r.shown(plain)
		e.Staple = c.staple
		if v := logs.Judge(e, now); v.Outcome != c.want || !strings.Contains(v.Text, c.says) {
			t.Errorf("%v %s, want %q", v.Outcome, v.Text, c.says)
		}
	}
}
