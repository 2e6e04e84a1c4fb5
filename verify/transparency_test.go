package verify_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/ct"
	"sallyport/internal/ca"
	"sallyport/verify"
)

// logsOf is a list of that age.
func logsOf(t *testing.T, age time.Duration, logs ...*ca.Log) *ct.Logs {
	t.Helper()
	l := new(ct.Logs)
	if logs == nil {
		return l
	}
	list, err := ct.ParseList(ca.LogList(now.Add(-age), logs...))
	if err != nil {
		t.Fatal(err)
	}
	l.Set(list)
	return l
}

func TestTransparency(t *testing.T) {
	const day = 24 * time.Hour
	root := ca.TestAt(t, now)
	inter := root.Intermediate()
	a, b := ca.TestLog(t, "Alder", "A"), ca.TestLog(t, "Birch", "B")
	promise := func(l *ca.Log) ca.Promise { return ca.Promise{Log: l, At: now.Add(-day)} }
	leaf := func(promises ...ca.Promise) *ca.Leaf {
		return inter.Leaf(good, ca.Embed(inter.Cert, promises...))
	}
	bad := promise(b)
	bad.Tamper = func(s []byte) []byte { s[len(s)-1] ^= 1; return s }
	public, plain := leaf(promise(a), promise(b)), inter.Leaf(good)
	fresh := logsOf(t, day, a, b)
	anchors := anchorsOf(t, root.Cert)
	pkix := verify.PKIX{Anchors: anchors, From: "to.ca", Profile: verify.Private}
	for _, c := range []struct {
		name string
		by   verify.Authenticator
		leaf *ca.Leaf
		logs *ct.Logs
		want verify.Reason // of require
		note verify.Reason // of report
		says string
	}{
		{"public", pkix, public, fresh, "", "", ""},
		{"public, by its key alone", verify.PinAuthenticator(pinOf(&verify.Presented{Chain: root.Chain(public)})), public, fresh, "", "", ""},
		{"public, to whoever comes", verify.Anyone(), public, fresh, "", "", ""},
		{"plain", pkix, plain, fresh, verify.CTMissing, verify.CTMissing, "no SCT"},
		{"one log", pkix, leaf(promise(a)), fresh, verify.CTTooFew, verify.CTTooFew, `"Alder" (A)`},
		{"bad signature", pkix, leaf(promise(a), bad), fresh, verify.CTInvalid, verify.CTInvalid, `"Birch" (B): its signature`},
		{"no list", pkix, public, logsOf(t, 0), verify.CTNoList, verify.CTNoList, "no list of logs"},
		{"old list", pkix, plain, logsOf(t, 71*day, a, b), "", verify.CTNoList, "71 days old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &verify.Presented{Name: "good.test", Chain: root.Chain(c.leaf), Now: now}
			for range 2 { // the second time out of memory
				id, err := verify.With(c.by, verify.Transparency(c.logs, true)).Verify(t.Context(), p)
				if got := reason(t, err); got != c.want || got != "" && !strings.Contains(err.Error(), c.says) {
					t.Errorf("require: %q, want %q: %v", got, c.want, err)
				}
				// By an old list nothing was checked.
				if err == nil && slices.Contains(id.By(), "ct") != (c.note == "") {
					t.Errorf("passed by %q", id.By())
				}
				if err == nil && c.note != "" {
					wantNote(t, id, c.note, c.says) // it was not enforced, and that is said
				}
				id, err = verify.With(c.by, verify.Transparency(c.logs, false)).Verify(t.Context(), p)
				if err != nil {
					t.Fatalf("report: %v", err)
				}
				wantNote(t, id, c.note, c.says)
				if slices.Contains(id.By(), "ct") {
					t.Errorf("report says that it passed: %q", id.By())
				}
			}
		})
	}
}

func wantNote(t *testing.T, id *verify.Identity, code verify.Reason, says string) {
	t.Helper()
	notes := id.Notes()
	if code == "" && len(notes) == 0 {
		return
	}
	if len(notes) != 1 || notes[0].Code != code || !strings.Contains(notes[0].Text, says) {
		t.Errorf("notes %v, want one of %s", notes, code)
	}
}
