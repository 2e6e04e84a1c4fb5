package verify_test

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/verify"
)

type checkFunc func(context.Context, *verify.Presented, *verify.Identity) error

func (f checkFunc) Check(ctx context.Context, p *verify.Presented, id *verify.Identity) error {
	return f(ctx, p, id)
}

type authFunc func(context.Context, *verify.Presented) (*verify.Identity, error)

func (f authFunc) Authenticate(ctx context.Context, p *verify.Presented) (*verify.Identity, error) {
	return f(ctx, p)
}

var (
	errOne = errors.New("one")
	errTwo = errors.New("two")
)

func refuse(err error) verify.Check {
	return checkFunc(func(context.Context, *verify.Presented, *verify.Identity) error { return err })
}

// presented is a client with a good certificate.
func presented(t *testing.T, names []string, opts ...ca.Option) (*verify.Presented, verify.PKIX) {
	t.Helper()
	root := ca.TestAt(t, now)
	p := &verify.Presented{Role: verify.Client, Chain: root.Chain(root.Leaf(names, opts...)), Now: now}
	return p, verify.PKIX{Anchors: anchorsOf(t, root.Cert), From: "client.ca", Profile: verify.Private}
}

func TestWithHearsTheFirstRefusalOfTheList(t *testing.T) {
	p, pkix := presented(t, good)
	slow := checkFunc(func(ctx context.Context, _ *verify.Presented, _ *verify.Identity) error {
		time.Sleep(10 * time.Millisecond)
		return errOne
	})
	for range 10 {
		if _, err := verify.With(pkix, verify.AllowAll(), slow, refuse(errTwo)).Verify(t.Context(), p); err != errOne {
			t.Fatal(err)
		}
	}
	waits := checkFunc(func(ctx context.Context, _ *verify.Presented, _ *verify.Identity) error {
		<-ctx.Done() // a refusal before it in the list tells it to stop
		return ctx.Err()
	})
	if _, err := verify.With(pkix, refuse(errTwo), waits).Verify(t.Context(), p); err != errTwo {
		t.Fatal(err)
	}
	id, err := verify.With(pkix, verify.AllowAll(), verify.Pin(pinOf(p))).Verify(t.Context(), p)
	if err != nil || !slices.Equal(id.By(), []string{"pkix", "allow: all", "pin"}) {
		t.Fatal(id, err)
	}
	if id.Leaf() != p.Chain[0] || len(id.Chains()) != 1 || len(id.Chains()[0]) != 2 || !slices.Equal(id.Names(), good) || id.SPKI() != pinOf(p) {
		t.Errorf("identity %+v", id)
	}
}

func TestWithPanicsInTheCallersGoroutine(t *testing.T) {
	p, pkix := presented(t, good)
	defer func() {
		if recover() != "boom" {
			t.Error("the panic went elsewhere")
		}
	}()
	boom := checkFunc(func(context.Context, *verify.Presented, *verify.Identity) error { panic("boom") })
	verify.With(pkix, verify.AllowAll(), boom).Verify(t.Context(), p)
}

func TestWithRefusesWhatIsMissing(t *testing.T) {
	p, pkix := presented(t, good)
	nobody := authFunc(func(context.Context, *verify.Presented) (*verify.Identity, error) { return nil, nil })
	for name, v := range map[string]verify.Verifier{
		"no authenticator": verify.With(nil), "neither identity nor error": verify.With(nobody), "zero PKIX": verify.With(verify.PKIX{}),
	} {
		if id, err := v.Verify(t.Context(), p); id != nil || err == nil {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
	for name, a := range map[string]verify.Authenticator{"pkix": pkix, "pin": verify.PinAuthenticator(pinOf(p)), "anyone": verify.Anyone()} {
		_, err := verify.With(a).Verify(t.Context(), &verify.Presented{Role: verify.Client, Now: now})
		if got := reason(t, err); got != verify.Missing {
			t.Errorf("%s: %v", name, err)
		}
		_, err = a.Authenticate(t.Context(), &verify.Presented{Role: verify.Client, Now: now})
		if got := reason(t, err); got != verify.Missing {
			t.Errorf("%s: %v", name, err)
		}
	}
	clockless := *p
	clockless.Now = time.Time{}
	if _, err := verify.With(pkix).Verify(t.Context(), &clockless); err == nil {
		t.Error("passes without a clock")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify.With(pkix).Verify(ctx, p); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestEither(t *testing.T) {
	p, pkix := presented(t, good)
	absent := authFunc(func(context.Context, *verify.Presented) (*verify.Identity, error) {
		return nil, errors.Join(errOne, verify.ErrNotApplicable)
	})
	mismatch := verify.PinAuthenticator([32]byte{1})
	if id, err := verify.Either(absent, pkix).Authenticate(t.Context(), p); err != nil || id.By()[0] != "pkix" {
		t.Error(id, err)
	}
	if _, err := verify.Either(mismatch, pkix).Authenticate(t.Context(), p); reason(t, err) != verify.PinWrong {
		t.Error(err)
	}
	if id, err := verify.Either(pkix, mismatch).Authenticate(t.Context(), p); err != nil || id.By()[0] != "pkix" {
		t.Error(id, err)
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		role verify.Role
		opt  ca.Option
		want verify.Reason
	}{
		{verify.Client, ca.ClientAuth(), pass}, {verify.Client, ca.ServerAuth(), verify.KeyUsage},
		{verify.Server, ca.ServerAuth(), pass}, {verify.Server, ca.ClientAuth(), verify.KeyUsage},
	} {
		for _, profile := range modes {
			p, pkix := presented(t, good, c.opt)
			p.Role, p.Name, pkix.Profile = c.role, "good.test", profile
			if _, err := verify.With(pkix).Verify(t.Context(), p); reason(t, err) != c.want {
				t.Errorf("%v %s: %v, want %q", c.role, profile, err, c.want)
			}
		}
	}
	p, pkix := presented(t, good, ca.EKU())
	pkix.Profile = "" // counts as strict
	if _, err := verify.With(pkix).Verify(t.Context(), p); reason(t, err) != verify.KeyUsage {
		t.Error(err)
	}
}

func TestAnyoneVouchesForNoName(t *testing.T) {
	root := ca.TestAt(t, now)
	p := &verify.Presented{Chain: root.Chain(root.SelfSigned(good, ca.Expired())), Now: now}
	id, err := verify.With(verify.Anyone()).Verify(t.Context(), p)
	if err != nil || !slices.Equal(id.By(), []string{"unsafe.no_verify"}) || id.Names() != nil || id.Chains() != nil {
		t.Fatal(id, err)
	}
	if _, err := verify.With(verify.Anyone(), verify.AllowAll()).Verify(t.Context(), p); reason(t, err) != verify.NotAllowed {
		t.Error(err)
	}
}

func TestReasonsAreTheFlowRecords(t *testing.T) {
	for _, r := range []verify.Reason{verify.Expired, verify.NotYetValid, verify.UnknownCA, verify.Invalid, verify.NameWrong,
		verify.WeakKey, verify.WeakSig, verify.KeyUsage, verify.PinWrong, verify.Distrusted, verify.OwnCA, verify.CTMissing, verify.CTInvalid, verify.CTTooFew, verify.CTNoList,
		verify.RevokedCert, verify.RevocationUnknown, verify.MustStaple} {
		if flow.Reason(r).Meaning() == "" {
			t.Errorf("%s is no reason of the flow record", r)
		}
	}
}

func pinOf(p *verify.Presented) [32]byte {
	id, err := verify.Anyone().Authenticate(context.Background(), p)
	if err != nil {
		panic(err)
	}
	return id.SPKI()
}

func TestPin(t *testing.T) {
	p, pkix := presented(t, good)
	pin := pinOf(p)
	if _, err := verify.With(pkix, verify.Pin([32]byte{1}, pin)).Verify(t.Context(), p); err != nil {
		t.Error(err)
	}
	_, err := verify.With(pkix, verify.Pin([32]byte{1}, [32]byte{2})).Verify(t.Context(), p)
	if reason(t, err) != verify.PinWrong || !strings.Contains(err.Error(), verify.FormatPin(pin)) {
		t.Error(err)
	}
	if _, err := verify.With(pkix, verify.Pin()).Verify(t.Context(), p); reason(t, err) != verify.PinWrong {
		t.Error("no pin at all:", err)
	}

	root := ca.TestAt(t, now)
	p = &verify.Presented{Name: "other.test", Chain: root.Chain(root.SelfSigned(good, ca.Expired())), Now: now}
	id, err := verify.With(verify.PinAuthenticator(pinOf(p))).Verify(t.Context(), p)
	if err != nil || id.Names() != nil {
		t.Error("the key alone counts:", id, err)
	}
}

func TestParsePin(t *testing.T) {
	p, _ := presented(t, good)
	pin := pinOf(p)
	text := verify.FormatPin(pin)
	hexa := "0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef"
	colons := strings.Join(chunks(hexa, 2), ":")
	for _, s := range []string{text, hexa, colons} {
		if _, err := verify.ParsePin(s); err != nil {
			t.Error(err)
		}
	}
	if got, _ := verify.ParsePin(text); got != pin {
		t.Errorf("%s became %x", text, got)
	}
	for _, s := range []string{"", "sha256//", "sha256/" + text[8:], text[:len(text)-4], text + "AAAA", hexa[:62], hexa + "00", "sha1//" + text[8:],
		strings.TrimPrefix(text, "sha256//"), ":" + hexa, "01:" + hexa[2:], strings.Join(chunks(hexa, 4), ":"), " " + hexa, "sha256//\n" + text[8:]} {
		if pin, err := verify.ParsePin(s); err == nil {
			t.Errorf("%q became %x", s, pin)
		}
	}
}

func chunks(s string, n int) []string {
	var out []string
	for c := range slices.Chunk([]byte(s), n) {
		out = append(out, string(c))
	}
	return out
}

// What parses, formats to something that parses to the same.
func FuzzParsePin(f *testing.F) {
	f.Add("sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add(strings.Repeat("0f", 32))
	f.Add(strings.Repeat(":0f", 32)[1:])
	f.Fuzz(func(t *testing.T, s string) {
		pin, err := verify.ParsePin(s)
		if err != nil {
			return
		}
		text := verify.FormatPin(pin)
		if again, err := verify.ParsePin(text); err != nil || again != pin {
			t.Errorf("%q -> %x -> %q -> %x, %v", s, pin, text, again, err)
		}
		if strings.HasPrefix(s, "sha256//") && s != text {
			t.Errorf("two spellings of one pin: %q and %q", s, text)
		}
	})
}

func FuzzExplain(f *testing.F) {
	// A certificate of a stranger's making never panics, and passes no PKIX.
	root := ca.TestAt(f, now)
	f.Add(root.Leaf(good).Cert.Raw)
	f.Add(root.Intermediate().Cert.Raw)
	trusted := ca.TestAt(f, now)
	a, err := verify.LoadAnchors(now, []string{"x"}, func(string) ([]byte, error) { return trusted.CertPEM(), nil })
	if err != nil {
		f.Fatal(err)
	}
	good := trusted.Leaf(good).Cert
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		for _, role := range []verify.Role{verify.Server, verify.Client} {
			p := &verify.Presented{Role: role, Name: "good.test", Chain: []*x509.Certificate{c, good, c}, Now: now}
			if _, err := (verify.PKIX{Anchors: a, Profile: verify.Private}).Authenticate(t.Context(), p); err == nil {
				t.Error("passes")
			} else {
				reason(t, err)
			}
		}
	})
}
