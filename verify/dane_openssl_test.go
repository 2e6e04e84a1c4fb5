package verify_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/dane"
	"sallyport/internal/ca"
	"sallyport/verify"
)

// TestDANEAgainstOpenSSL has OpenSSL, which knows DANE well, judge the same chains by
// the same records: each kind of record about each certificate, and some of them two at
// a time. It takes two things that we do not: an issuer as an anchor that has expired
// itself, and a self-signed leaf by the whole of its own key as its issuer's.
func TestDANEAgainstOpenSSL(t *testing.T) {
	now := time.Now()
	root := ca.TestAt(t, now) // which PKIX trusts
	inter := root.Intermediate()
	private := ca.TestAt(t, now)
	below := private.Intermediate()
	old := private.Intermediate(ca.Expired())
	good, bad := []string{"a.test"}, []string{"b.test"}
	plain := inter.Leaf(good)
	for name, c := range map[string]struct {
		leaf     *ca.Leaf
		chain    []*x509.Certificate // above the leaf, as sent
		unsent   []*x509.Certificate
		trusted  bool // for records of usages 0 and 1 to be worth the time
		stricter verify.Reason
	}{
		"whole":         {plain, []*x509.Certificate{inter.Cert, root.Cert}, nil, true, ""},
		"short":         {plain, []*x509.Certificate{inter.Cert}, []*x509.Certificate{root.Cert}, true, ""},
		"leaf alone":    {plain, nil, []*x509.Certificate{inter.Cert, root.Cert}, true, ""},
		"wrong name":    {inter.Leaf(bad), []*x509.Certificate{inter.Cert, root.Cert}, nil, true, ""},
		"expired":       {inter.Leaf(good, ca.Expired()), []*x509.Certificate{inter.Cert, root.Cert}, nil, true, ""},
		"self-signed":   {private.SelfSigned(good), nil, nil, false, verify.DANEMismatch},
		"private":       {below.Leaf(good), []*x509.Certificate{below.Cert, private.Cert}, []*x509.Certificate{root.Cert}, true, ""},
		"private short": {below.Leaf(good), []*x509.Certificate{below.Cert}, []*x509.Certificate{private.Cert}, false, ""},
		"old issuer":    {old.Leaf(good), []*x509.Certificate{old.Cert, private.Cert}, nil, false, verify.Expired},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := &oracle{anchor: root.File(), stricter: c.stricter, pkix: verify.PKIX{Anchors: anchorsOf(t, root.Cert), From: "to.ca", Profile: verify.Private}}
			o.serve(t, c.leaf, c.chain)
			var singles []dane.Record
			turn := 0
			for _, about := range append(o.chain[:len(o.chain):len(o.chain)], c.unsent...) {
				for u := dane.PKIXTA; u <= dane.DANEEE; u++ {
					for s := dane.Cert; s <= dane.SPKI; s++ {
						if u <= dane.PKIXEE && !c.trusted {
							continue
						}
						if turn++; u == dane.DANETA { // where it makes the most difference
							singles = append(singles, newRecord(t, about, u, s, dane.Full), newRecord(t, about, u, s, dane.SHA256))
						} else if turn%2 == 0 {
							singles = append(singles, newRecord(t, about, u, s, dane.Matching(turn/2%3)))
						}
					}
				}
			}
			singles = append(singles,
				dane.Record{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)},
				dane.Record{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 31)},
				dane.Record{Usage: 2, Selector: 0, Matching: 0, Data: []byte("no certificate")})
			for i, r := range singles {
				o.compare(t, r)
				if i%4 == 0 {
					o.compare(t, r, singles[(i*7+3)%len(singles)])
				}
			}
			t.Logf("%d verdicts, %d of them good", o.total, o.good)
		})
	}
}

// oracle is OpenSSL's s_client against a server with one chain.
type oracle struct {
	anchor      string
	pkix        verify.PKIX
	stricter    verify.Reason // for which we may refuse what OpenSSL takes
	chain       []*x509.Certificate
	addr        string
	total, good int
}

func (o *oracle) serve(t *testing.T, leaf *ca.Leaf, above []*x509.Certificate) {
	t.Helper()
	cert := leaf.TLS()
	cert.Certificate = cert.Certificate[:1:1] // which tests beside this one share
	for _, c := range above {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	for _, der := range cert.Certificate {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		o.chain = append(o.chain, c)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var closing atomic.Bool
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !closing.Load() && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			wg.Go(func() {
				c.(*tls.Conn).HandshakeContext(t.Context())
				c.Close()
			})
		}
	})
	t.Cleanup(func() { closing.Store(true); l.Close(); wg.Wait() })
	o.addr = l.Addr().String()
}

func (o *oracle) compare(t *testing.T, records ...dane.Record) {
	t.Helper()
	args := []string{"s_client", "-connect", o.addr, "-brief", "-CAfile", o.anchor, "-no-CApath", "-no-CAstore",
		"-servername", "a.test", "-dane_tlsa_domain", "a.test", "-dane_ee_no_namechecks"}
	var texts []string
	for _, r := range records {
		args = append(args, "-dane_tlsa_rrdata", r.String())
		texts = append(texts, r.Params())
	}
	out, _ := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
	theirs := strings.Contains(string(out), "Verification: OK")
	none := strings.Contains(string(out), "Failed to import any TLSA records")
	if !theirs && !none && !strings.Contains(string(out), "Verification error") {
		t.Errorf("%v: openssl says nothing of use: %s", texts, out)
	}
	d := &verify.DANE{Records: tlsa("a.test", records...), PKIX: o.pkix, Profile: verify.Private}
	p := served(o.chain...)
	p.Now = time.Now()
	_, err := d.Authenticate(t.Context(), p)
	o.total++
	if theirs {
		o.good++
	}
	if theirs && err != nil && o.stricter != "" && reason(t, err) == o.stricter {
		return
	}
	if (err == nil) != theirs || errors.Is(err, verify.ErrNotApplicable) != none {
		t.Errorf("%v: ours is %v; openssl: %s", texts, err, out)
	}
}
