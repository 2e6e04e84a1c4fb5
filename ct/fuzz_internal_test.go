package ct

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"testing"
	"time"

	"sallyport/internal/ca"
)

var at = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// What is cut out of a certificate is what its CA put in.
func TestSurgeryIsExact(t *testing.T) {
	root := ca.TestAt(t, at)
	var before []byte
	grow := func(exts ...[]byte) ca.Option {
		return ca.TBS(func(tbs *ca.TBSCertificate) {
			var err error
			if before, err = asn1.Marshal(*tbs); err != nil {
				t.Fatal(err)
			}
			for _, e := range exts {
				tbs.Extensions = append(tbs.Extensions, ca.SCTExtension(ca.SCTList(e)))
			}
		})
	}
	tbsOf := func(opts ...ca.Option) []byte {
		var der []byte
		opts = append(opts, ca.Tamper(func(d []byte) []byte { der = d; return d }))
		root.Leaf([]string{"a.test"}, opts...)
		var c struct {
			TBS  asn1.RawValue
			Rest []asn1.RawValue `asn1:"optional"`
		}
		if _, err := asn1.Unmarshal(der, &c); err != nil {
			t.Log(err) // the fields behind TBS are another's matter
		}
		return c.TBS.FullBytes
	}
	got, err := preTBS(tbsOf(grow([]byte{1})))
	if err != nil || !bytes.Equal(got, before) {
		t.Errorf("%x\n%x\n%v", got, before, err)
	}
	for name, tbs := range map[string][]byte{
		"no extension": tbsOf(), "two": tbsOf(grow([]byte{1}, []byte{2})), "no extensions at all": tbsOf(ca.V1()), "nothing": nil,
		"bytes behind it": append(tbsOf(grow([]byte{1})), 0),
	} {
		if _, err := preTBS(tbs); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Whatever is cut, the rest is still DER without SCTs, and of the same parts.
func FuzzPreTBS(f *testing.F) {
	root := ca.TestAt(f, at)
	log := ca.TestLog(f, "Alder", "A")
	for _, opts := range [][]ca.Option{nil, {ca.OU("x"), ca.CN("y")}, {ca.NoSAN()}} {
		opts = append(opts, ca.Embed(root.Cert, ca.Promise{Log: log, At: at}))
		f.Add(root.Leaf([]string{"a.test", "127.0.0.1"}, opts...).Cert.RawTBSCertificate)
	}
	f.Fuzz(func(t *testing.T, tbs []byte) {
		pre, err := preTBS(tbs)
		if err != nil {
			return
		}
		if _, err := preTBS(pre); err == nil {
			t.Error("SCTs were left")
		}
		if len(pre) >= len(tbs) {
			t.Errorf("%d bytes of %d are left", len(pre), len(tbs))
		}
		var was, is []asn1.RawValue
		if _, err := asn1.Unmarshal(tbs, &was); err != nil {
			return // encoding/asn1 is stricter in places
		}
		if rest, err := asn1.Unmarshal(pre, &is); err != nil || len(rest) > 0 {
			t.Fatalf("%v, %d bytes behind", err, len(rest))
		}
		if n := len(is); n != len(was) && n != len(was)-1 {
			t.Fatalf("%d parts of %d", n, len(was))
		}
		for i := range is {
			if i < len(was)-1 && !bytes.Equal(is[i].FullBytes, was[i].FullBytes) {
				t.Errorf("part %d has changed", i)
			}
		}
	})
}

// What parses as an SCT is made of those bytes and no others.
func FuzzParseSCT(f *testing.F) {
	for _, ext := range [][]byte{nil, {0, 0, 5, 0, 0, 0, 1, 2}} {
		l := ca.TestLog(f, "Alder", "A")
		l.Extensions = ext
		b, err := l.SCT(at, []byte("certificate"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSCT(b)
		if err != nil {
			return
		}
		if want := 1 + 32 + 8 + 2 + len(s.extensions) + 2 + 2 + len(s.signature); len(b) != want {
			t.Errorf("%d bytes make an SCT of %d", len(b), want)
		}
		if y := s.Time.Year(); y < 1970 || y > 9999 || uint64(s.Time.UnixMilli()) != s.millis {
			t.Errorf("%d is %s", s.millis, s.Time)
		}
	})
}

// A list that splits is what its parts make.
func FuzzSplitList(f *testing.F) {
	f.Add(ca.SCTList([]byte{1, 2}, []byte{3}))
	f.Add([]byte{0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := SplitList(b)
		if err != nil {
			return
		}
		if len(list) == 0 || len(list) > maxSCTs || !bytes.Equal(ca.SCTList(list...), b) {
			t.Errorf("%x splits into %x", b, list)
		}
	})
}

// Lists and staples end in an error or in something to judge by, never in a panic.
func FuzzParseList(f *testing.F) {
	a, b := ca.TestLog(f, "Alder", "A"), ca.TestLog(f, "Tile", "B")
	b.Tiled, b.State, b.Since = true, "retired", at
	b.JSON = map[string]any{
		"temporal_interval":  map[string]any{"start_inclusive": at, "end_exclusive": at.Add(1e15)},
		"previous_operators": []any{map[string]any{"name": "Z", "end_time": at}},
	}
	f.Add(ca.LogList(at, a, b))
	f.Add([]byte(`{"log_list_timestamp":"2026-06-01T12:00:00Z","operators":[{"name":"x","logs":[{}]}]}`))
	leaf := ca.TestAt(f, at).Leaf([]string{"a.test"}).Cert
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseList(data)
		if err != nil {
			return
		}
		if len(l.Logs) == 0 || l.Time.IsZero() {
			t.Fatalf("a list of %d logs at %s", len(l.Logs), l.Time)
		}
		logs := new(Logs)
		logs.Set(l)
		for _, log := range l.Logs {
			sct := append([]byte{0}, log.ID[:]...)
			sct = append(sct, 0, 0, 1, 0x9e, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0)
			if v := logs.Judge(&Evidence{Leaf: leaf, Handshake: [][]byte{sct}}, at); v.Outcome == Good || v.Text == "" {
				t.Errorf("nobody has signed, and %v %q", v.Outcome, v.Text)
			}
		}
	})
}

// An OCSP response is a stranger's too.
func FuzzStapled(f *testing.F) {
	f.Add([]byte{0x30, 3, 10, 1, 6})
	leaf := &x509.Certificate{}
	leaf.SerialNumber = ca.TestAt(f, at).Cert.SerialNumber
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := stapled(b, leaf); err == nil && len(list) > maxSCTs {
			t.Errorf("%d SCTs", len(list))
		}
	})
}
