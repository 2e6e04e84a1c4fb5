package verify_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testca"
	"sallyport/verify"
)

var (
	now   = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	good  = []string{"good.test"}
	modes = []verify.Profile{verify.Private, verify.WebPKI, verify.Strict}
)

// rig is what a row is made of: a root that is trusted, and one that is not.
type rig struct {
	t       *testing.T
	root    *ca.Tester
	other   *ca.Tester
	anchors []*x509.Certificate
	name    string
	suite   uint16
	own     verify.Keys
}

// row is one of INTERCEPTION's cases about certificates. The last of want's
// reasons also holds for the profiles after it; "" passes.
type row struct {
	name  string
	chain func(r *rig) []*x509.Certificate
	want  []verify.Reason
}

const pass = verify.Reason("")

func always(r verify.Reason) []verify.Reason { return []verify.Reason{r} }

func run(t *testing.T, rows []row) {
	for _, w := range rows {
		t.Run(w.name, func(t *testing.T) {
			r := &rig{t: t, root: ca.TestAt(t, now), other: ca.TestAt(t, now), name: "good.test"}
			r.anchors = []*x509.Certificate{r.root.Cert}
			chain := w.chain(r)
			for i, profile := range modes {
				want := w.want[min(i, len(w.want)-1)]
				_, err := authenticate(t, r, profile, chain)
				if got := reason(t, err); got != want {
					t.Errorf("%s: %q, want %q: %v", profile, got, want, err)
				}
				t.Logf("%s: %v", profile, err)
			}
		})
	}
}

func authenticate(t *testing.T, r *rig, profile verify.Profile, chain []*x509.Certificate) (*verify.Identity, error) {
	a := anchorsOf(t, r.anchors...)
	v := verify.With(verify.PKIX{Anchors: a, From: "to.ca", Profile: profile, Own: r.own})
	id, err := v.Verify(t.Context(), &verify.Presented{Name: r.name, Chain: chain, Suite: r.suite, Now: now})
	if (id == nil) == (err == nil) {
		t.Fatalf("identity %v with error %v", id, err)
	}
	return id, err
}

func reason(t *testing.T, err error) verify.Reason {
	t.Helper()
	if err == nil {
		return pass
	}
	var e *verify.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is not a verify.Error: %v", err, err)
	}
	if s := e.Error(); len(s) > 1200 || strings.ContainsAny(s, "\x00\n\x1b") {
		t.Errorf("a text of %d bytes: %q", len(s), s)
	}
	return e.Reason
}

func anchorsOf(t *testing.T, certs ...*x509.Certificate) *verify.Anchors {
	t.Helper()
	var p []byte
	for _, c := range certs {
		p = append(p, pemOf(c)...)
	}
	a, err := verify.LoadAnchors(now, []string{"ca.pem"}, func(string) ([]byte, error) { return p, nil })
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// leaf is a row of one leaf below an intermediate.
func leaf(opts ...ca.Option) func(*rig) []*x509.Certificate {
	return leafFor(good, opts...)
}

func leafFor(names []string, opts ...ca.Option) func(*rig) []*x509.Certificate {
	return func(r *rig) []*x509.Certificate {
		i := r.root.Intermediate()
		return i.Chain(i.Leaf(names, opts...))
	}
}

func named(name string, f func(*rig) []*x509.Certificate) func(*rig) []*x509.Certificate {
	return func(r *rig) []*x509.Certificate {
		r.name = name
		return f(r)
	}
}

func tmpl(f func(*x509.Certificate)) ca.Option { return ca.Template(f) }

// The table of testca is that of the running program as well; see there for what
// the rows are.
func TestInterception(t *testing.T) {
	for _, c := range testca.Cases() {
		t.Run(c.Name(), func(t *testing.T) {
			t.Parallel()
			judge(t, c)
		})
	}
}

func judge(t *testing.T, c testca.Case) {
	m := c.Make(t, now)
	chain, err := m.Parsed()
	if err != nil { // crypto/tls says so to the server, and nobody is asked
		for _, p := range modes {
			if c.Want.Of(string(p)) == "" {
				t.Errorf("does not parse: %v", err)
			}
		}
		return
	}
	r := &rig{t: t, name: m.Name, anchors: m.Anchors, own: verify.Keys{}}
	if m.Own != nil {
		r.own.Add(m.Own.Cert)
	}
	for _, profile := range modes {
		want := verify.Reason(c.Want.Of(string(profile)))
		if c.ByHandshake() {
			want = pass
		}
		id, err := authenticate(t, r, profile, chain)
		if got := reason(t, err); got != want {
			t.Errorf("%s: %q, want %q: %v", profile, got, want, err)
			continue
		}
		if err == nil {
			wantNotes(t, id, c.Notes[string(profile)])
		}
	}
}

func wantNotes(t *testing.T, id *verify.Identity, text string) {
	t.Helper()
	notes := id.Notes()
	if text == "" && len(notes) > 0 || text != "" && (len(notes) != 1 || !strings.Contains(notes[0].Text, text)) {
		t.Errorf("noted %v, want one of %q", notes, text)
	}
}

func TestInterceptionWithGODEBUG(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0,x509sha1=1,tlssha1=1") // IC-56
	for _, c := range testca.Cases() {
		if slices.Contains([]string{"IC-26", "IC-27", "IC-28", "IC-29", "IC-30", "IC-31", "IC-32", "IC-33"}, c.ID) {
			t.Run(c.Name(), func(t *testing.T) { judge(t, c) })
		}
	}
}

func TestKeysThatNothingIsWrongWith(t *testing.T) {
	run(t, []row{
		{"RSA 2048", leaf(publicRSA(2048, 65537)), always(pass)},
		{"RSA 8192", leaf(publicRSA(8192, 65537)), always(pass)},
		{"keyEncipherment where it is what is used", func(r *rig) []*x509.Certificate {
			r.suite = tls.TLS_RSA_WITH_AES_128_GCM_SHA256
			return leaf(ca.SharedRSA(), ca.KeyUsage(x509.KeyUsageKeyEncipherment))(r)
		}, always(pass)},
	})
}

// publicRSA is a key of which nobody needs the private half.
func publicRSA(bits, e int) ca.Option {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		panic(err)
	}
	n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
	return ca.Public(&rsa.PublicKey{N: n, E: e})
}

// A verdict costs a bounded number of signatures, whatever is sent: x509 has a
// bound of 100, the words for the refusal have one of their own. Measured against
// the cost of one, since the time of day says more about the machine.
func TestIC38Cost(t *testing.T) {
	r := &rig{t: t, root: ca.TestAt(t, now), other: ca.TestAt(t, now), name: "good.test"}
	r.anchors = []*x509.Certificate{r.root.Cert}
	top := r.other.Intermediate(ca.CN("same"), ca.ECDSA(elliptic.P521()))
	chain := top.Chain(top.Leaf(good))
	for len(chain) < 40 {
		top = top.Intermediate(ca.CN("same"), ca.ECDSA(elliptic.P521()))
		chain = append(chain, top.Cert)
	}
	cost := func(f func()) time.Duration {
		best := time.Hour
		for range 3 {
			start := time.Now()
			f()
			best = min(best, time.Since(start))
		}
		return best
	}
	ten := cost(func() {
		for range 10 {
			_ = chain[0].CheckSignatureFrom(chain[39])
		}
	})
	all := cost(func() {
		if _, err := authenticate(t, r, verify.Private, chain); err == nil {
			t.Error("passes")
		}
	})
	t.Logf("ten signatures of P-521 %v, the worst verdict %v", ten, all)
	if all > 40*ten {
		t.Errorf("a verdict took %v, ten signatures take %v", all, ten)
	}
}

// The table of the manual has every row, and under each profile what becomes of it.
func TestInterceptionIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../doc/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	type verdicts [3]string // as testca.Profiles
	rows := map[string][]verdicts{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		for _, id := range idOf.FindAllString(cells[min(1, len(cells)-1)], -1) {
			var v verdicts
			for i := range v {
				if v[i] = cells[min(3+i, len(cells)-1)]; strings.TrimSpace(v[i]) == "same" {
					v[i] = v[i-1]
				}
			}
			rows[id] = append(rows[id], v)
		}
	}
	for _, c := range testca.Cases() {
		for i, profile := range testca.Profiles() {
			want := c.Want.Of(profile)
			if c.Notes[profile] != "" {
				want = "note"
			}
			if c.ID != "IC-00" && !slices.ContainsFunc(rows[c.ID], func(v verdicts) bool { return strings.Contains(v[i], want) }) {
				t.Errorf("%s, %s: %q does not stand in %q", c.Name(), profile, want, rows[c.ID])
			}
		}
	}
	for _, c := range testca.Servers() {
		if rows[c.ID] == nil {
			t.Errorf("%s is not documented", c.Name())
		}
	}
}

var idOf = regexp.MustCompile(`I[CT]-[0-9]{2}`)
