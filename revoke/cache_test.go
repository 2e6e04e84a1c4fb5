package revoke_test

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"sallyport/internal/ca"
	"sallyport/revoke"
)

// clock is one that the test sets.
type clock struct{ at atomic.Pointer[time.Time] }

func (c *clock) now() time.Time      { return *c.at.Load() }
func (c *clock) set(t time.Time)     { c.at.Store(&t) }
func (c *clock) add(d time.Duration) { c.set(c.now().Add(d)) }

// server answers as the test says, and counts.
type server struct {
	*httptest.Server
	asked  atomic.Int32
	mu     sync.Mutex
	answer http.HandlerFunc
}

func newServer(t *testing.T, answer http.HandlerFunc) *server {
	s := &server{answer: answer}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) set(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func bytesOf(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }
}

func down(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "busy", http.StatusServiceUnavailable)
}

// hang answers nothing until the client has gone.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// said collects warnings.
type said struct {
	mu   sync.Mutex
	list []string
}

func (s *said) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, text)
}

func (s *said) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.list, func(l string) bool { return strings.Contains(l, text) })
}

func (s *said) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = nil
}

func newCache(t *testing.T, c *clock, dir string, said *said) *revoke.Cache {
	t.Helper()
	cache, err := revoke.NewCache(revoke.Options{Dir: dir, Now: c.now, Warn: said.add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Close)
	return cache
}

func newFetcher(t *testing.T) (*revoke.Fetcher, *clock) {
	c := new(clock)
	c.set(now)
	return newCache(t, c, "", new(said)).Fetcher("", http.DefaultClient), c
}

// until waits for what comes soon.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no " + what)
		}
	}
}

// at is the same site with a leaf that names servers.
func (s *site) at(opts ...ca.Option) {
	s.leaf = s.inter.Leaf([]string{"good.test"}, opts...)
	s.status.Cert = s.leaf.Cert
}

func (s *site) good() []byte { return s.respond(s.delegate, s.status) }

func (s *site) revoked() []byte {
	return s.respond(s.delegate, s.with(func(st *ca.Status) { st.Revoked = now.Add(-time.Hour) }))
}

func wantAnswer(t *testing.T, a *revoke.Answer, err error, revoked bool) {
	t.Helper()
	if err != nil || a.Revoked != revoked {
		t.Fatalf("%+v, %v, want revoked %t", a, err, revoked)
	}
}

func TestOCSPRequests(t *testing.T) {
	s := newSite(t)
	var methods []string
	srv := newServer(t, nil)
	srv.set(func(w http.ResponseWriter, r *http.Request) {
		methods = append(methods, r.Method)
		der, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, "/"))
		if r.Method == http.MethodPost {
			der, err = io.ReadAll(r.Body)
			if r.Header.Get("Content-Type") != "application/ocsp-request" {
				t.Error(r.Header)
			}
		}
		if err != nil {
			t.Error(err)
		}
		q, err := ocsp.ParseRequest(der)
		if err != nil || q.SerialNumber.Cmp(s.leaf.Cert.SerialNumber) != 0 {
			t.Errorf("%+v, %v", q, err)
		}
		w.Write(s.good())
	})
	for want, place := range map[string]string{"GET": srv.URL, "POST": srv.URL + "/" + strings.Repeat("x", 200)} {
		methods = nil
		s.at(ca.OCSPAt(place))
		f, _ := newFetcher(t)
		a, err := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
		wantAnswer(t, a, err, false)
		if fmt.Sprint(methods) != "["+want+"]" {
			t.Errorf("%s: %s", want, methods)
		}
	}
}

// Whatever a responder does, it is asked, and the next one after it.
func TestResponders(t *testing.T) {
	s := newSite(t)
	other := newSite(t)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"garbage", bytesOf([]byte("<html>")), "no OCSP response"},
		{"nothing", bytesOf(nil), "no OCSP response"},
		{"down", down, "503"},
		{"another's", bytesOf(other.good()), "OCSP"},
		{"huge", bytesOf(make([]byte, 1<<20)), "more than 65536 bytes"},
		{"redirected for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x"+r.URL.Path, http.StatusFound) }, "more than 3 times"},
		{"redirected to https", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
		}, "only http"},
		{"answers another's nonce", func(w http.ResponseWriter, _ *http.Request) {
			r := *s.delegate
			r.Extensions = append(r.Extensions, extension(t, 1, 1))
			r.Extensions[0].Critical, r.Extensions[0].Id = false, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}
			w.Write(s.respond(&r, s.status))
		}, "nonce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := newServer(t, c.answer), newServer(t, nil)
			s.at(ca.OCSPAt("ldap://x.test/", "https://127.0.0.1:1/", first.URL, second.URL))
			second.set(bytesOf(s.good()))
			f, clock := newFetcher(t)
			a, err := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
			wantAnswer(t, a, err, false)
			if first.asked.Load() == 0 {
				t.Error("the first was not asked")
			}
			second.set(down)
			s.at(ca.OCSPAt(first.URL, second.URL)) // another serial
			if a, err = f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "503") {
				t.Fatalf("%+v, %v, want %q and 503", a, err, c.want)
			}
			// A failure is remembered for a while, and no longer.
			asked := second.asked.Load()
			if _, err = f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert); err == nil || second.asked.Load() != asked {
				t.Errorf("asked again at once: %v", err)
			}
			second.set(bytesOf(s.good()))
			clock.add(time.Minute)
			a, err = f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
			wantAnswer(t, a, err, false)
		})
	}
}

func TestNobodyToAsk(t *testing.T) {
	s := newSite(t)
	f, _ := newFetcher(t)
	_, e1 := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
	_, e2 := f.CRL(t.Context(), s.leaf.Cert, s.inter.Cert)
	_, e3 := f.Issuers(t.Context(), s.leaf.Cert)
	for _, err := range []error{e1, e2, e3} {
		if !errors.Is(err, revoke.ErrNoSource) {
			t.Error(err)
		}
	}
	srv := newServer(t, down)
	s.at(ca.OCSPAt(srv.URL), ca.CRLAt(srv.URL), ca.AIAAt(srv.URL))
	none := f.Cache.Fetcher("none", nil)
	_, e1 = none.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
	_, e2 = none.CRL(t.Context(), s.leaf.Cert, s.inter.Cert)
	_, e3 = none.Issuers(t.Context(), s.leaf.Cert)
	for _, err := range []error{e1, e2, e3} {
		if err == nil || errors.Is(err, revoke.ErrNoSource) || srv.asked.Load() > 0 {
			t.Error(err)
		}
	}
}

// A hundred flows wait for one fetch, and a slow responder holds nobody but those
// who wait for it, and them no longer than they want.
func TestOneFetchAtATime(t *testing.T) {
	s := newSite(t)
	gate := make(chan struct{})
	slow, quick := newServer(t, nil), newServer(t, nil)
	slow.set(func(w http.ResponseWriter, r *http.Request) { <-gate; w.Write(s.good()) })
	s.at(ca.OCSPAt(slow.URL))
	f, _ := newFetcher(t)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			a, err := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
			if err != nil || a.Revoked {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
	until(t, "request", func() bool { return slow.asked.Load() == 1 })
	impatient, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if a, err := f.OCSP(impatient, s.leaf.Cert, s.inter.Cert); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("%+v, %v", a, err)
	}
	other := newSite(t)
	other.at(ca.OCSPAt(quick.URL))
	quick.set(bytesOf(other.good()))
	a, err := f.OCSP(t.Context(), other.leaf.Cert, other.inter.Cert)
	wantAnswer(t, a, err, false)
	close(gate)
	wg.Wait()
	if n := slow.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A responder that is slow, for however many certificates, is slow for those alone.
func TestSlowResponderHoldsNobodyElse(t *testing.T) {
	s := newSite(t)
	slow, fast := newServer(t, hang), newServer(t, nil)
	f, _ := newFetcher(t)
	nobody, cancel := context.WithCancel(t.Context())
	cancel()
	for range 300 {
		s.at(ca.OCSPAt(slow.URL), ca.CRLAt(slow.URL+"/"+s.leaf.Cert.SerialNumber.String()), ca.AIAAt(slow.URL))
		f.OCSP(nobody, s.leaf.Cert, s.inter.Cert)
		f.CRL(nobody, s.leaf.Cert, s.inter.Cert)
		f.Issuers(nobody, s.leaf.Cert)
	}
	place := strings.Replace(fast.URL, "127.0.0.1", "localhost", 1)
	s.at(ca.OCSPAt(place), ca.AIAAt(place+"/issuer"))
	fast.set(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/issuer" {
			w.Write(s.inter.Cert.Raw)
			return
		}
		w.Write(s.good())
	})
	a, err := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
	wantAnswer(t, a, err, false)
	if found, err := f.Issuers(t.Context(), s.leaf.Cert); len(found) != 1 {
		t.Error(found, err)
	}
}

// A body of one byte a while ends by its time; so does a cache that is closed.
func TestCloseEndsFetches(t *testing.T) {
	s := newSite(t)
	srv := newServer(t, hang)
	s.at(ca.OCSPAt(srv.URL))
	f, _ := newFetcher(t)
	ended := make(chan error, 1)
	go func() {
		_, err := f.OCSP(context.Background(), s.leaf.Cert, s.inter.Cert)
		ended <- err
	}()
	until(t, "request", func() bool { return srv.asked.Load() == 1 })
	f.Cache.Close()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	if _, err := f.OCSP(t.Context(), s.inter.Cert, s.root.Cert); err == nil {
		t.Error("a closed cache fetches")
	}
}

func TestRefreshAtHalfLife(t *testing.T) {
	s := newSite(t)
	srv := newServer(t, nil)
	s.at(ca.OCSPAt(srv.URL))
	srv.set(bytesOf(s.good())) // of an hour ago, good for three days
	f, clock := newFetcher(t)
	get := func() (*revoke.Answer, error) { return f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert) }
	a, err := get()
	wantAnswer(t, a, err, false)
	clock.add(35 * time.Hour)
	get()
	if n := srv.asked.Load(); n != 1 {
		t.Fatalf("asked %d times before half of the time", n)
	}
	// A responder that is down then takes nothing away.
	srv.set(down)
	clock.add(2 * time.Hour)
	a, err = get()
	wantAnswer(t, a, err, false)
	until(t, "refresh", func() bool { return srv.asked.Load() > 1 })
	clock.add(time.Hour)
	a, err = get()
	wantAnswer(t, a, err, false)
	// Nor does somebody who shows an older response.
	at := s.status
	s.status.This = s.status.This.Add(-time.Hour)
	old := s.good()
	srv.set(bytesOf(old))
	until(t, "end of the pause", func() bool {
		clock.add(time.Minute)
		get()
		return srv.asked.Load() > 3
	})
	// The newer one is taken, behind the back of who asks.
	s.status = at
	s.status.This, s.status.Next = now.Add(36*time.Hour), now.Add(6*day)
	srv.set(bytesOf(s.revokedNow()))
	until(t, "the newer answer", func() bool {
		clock.add(time.Minute)
		a, err := get()
		return err == nil && a.Revoked
	})
}

// revokedNow is revoked, with the times of status.
func (s *site) revokedNow() []byte {
	return s.respond(s.delegate, s.with(func(st *ca.Status) { st.Revoked = now }))
}

// A clock that leaves an answer's time behind, or comes before it, has it fetched anew.
func TestClockJumps(t *testing.T) {
	s := newSite(t)
	srv := newServer(t, nil)
	s.at(ca.OCSPAt(srv.URL))
	srv.set(bytesOf(s.good()))
	f, clock := newFetcher(t)
	for _, at := range []time.Duration{0, 10 * 365 * day, 0, -day, 0} {
		clock.set(now.Add(at))
		a, err := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
		if at == 0 {
			wantAnswer(t, a, err, false)
		} else if err == nil {
			t.Errorf("%s: %+v", at, a)
		}
	}
}

func TestDisk(t *testing.T) {
	s := newSite(t)
	srv := newServer(t, nil)
	s.at(ca.OCSPAt(srv.URL+"/ocsp/"), ca.CRLAt(srv.URL+"/crl"))
	crl := s.crl(s.inter, nil, s.leaf.Cert.SerialNumber)
	serve := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/crl" {
			w.Write(crl)
		} else {
			w.Write(s.good())
		}
	}
	dir := filepath.Join(t.TempDir(), "revocation")
	c := new(clock)
	c.set(now)
	said := new(said)
	check := func(want bool) {
		t.Helper()
		f := newCache(t, c, dir, said).Fetcher("", http.DefaultClient)
		a, err := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert)
		if want {
			wantAnswer(t, a, err, false)
		} else if err == nil {
			t.Errorf("%+v", a)
		}
		if a, err = f.CRL(t.Context(), s.leaf.Cert, s.inter.Cert); want {
			wantAnswer(t, a, err, true)
		} else if err == nil {
			t.Errorf("%+v", a)
		}
	}
	srv.set(serve)
	check(true)
	srv.set(down)
	check(true) // after a restart, without anybody to ask
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	wantMode(t, dir, 0o700)
	for _, f := range files {
		wantMode(t, f, 0o600)
		if err := os.WriteFile(f, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check(false)
	for _, f := range files {
		if !said.has(f + " is damaged and was removed") {
			t.Errorf("nothing was said of %s: %q", f, said.list)
		}
		if _, err := os.Stat(f); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", f, err)
		}
	}
	srv.set(serve)
	check(true)
	// What has grown old is no damage.
	said.reset()
	srv.set(down)
	c.add(30 * day)
	check(false)
	if len(said.list) > 0 {
		t.Error(said.list)
	}
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != want {
		t.Errorf("%s: %v, %v", path, info.Mode(), err)
	}
}

func TestFetchedCRL(t *testing.T) {
	s := newSite(t)
	srv := newServer(t, nil)
	s.at(ca.CRLAt("ldap://x.test/", srv.URL))
	twin := s.inter.Leaf([]string{"twin.test"}, ca.CRLAt(srv.URL))
	srv.set(bytesOf(s.crl(s.inter, nil, twin.Cert.SerialNumber)))
	f, clock := newFetcher(t)
	judge := func(c *x509.Certificate, want bool) {
		t.Helper()
		a, err := f.CRL(t.Context(), c, s.inter.Cert)
		wantAnswer(t, a, err, want)
	}
	for range 3 {
		judge(s.leaf.Cert, false)
		judge(twin.Cert, true)
	}
	if n := srv.asked.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	// An older list, though in its time, does not take the place of a newer one.
	srv.set(bytesOf(s.crl(s.inter, func(l *x509.RevocationList) { l.Number = big.NewInt(1) })))
	clock.add(13 * time.Hour)
	judge(twin.Cert, true)
	until(t, "refresh", func() bool { return srv.asked.Load() > 1 })
	for range 20 {
		judge(twin.Cert, true)
	}
	// One of another CA, at a place that both name, is nothing to either.
	other := ca.TestAt(t, now)
	leaf := other.Leaf([]string{"other.test"}, ca.CRLAt(srv.URL))
	if a, err := f.CRL(t.Context(), leaf.Cert, other.Cert); err == nil {
		t.Errorf("%+v", a)
	}
	judge(twin.Cert, true)
	// Once the newer one is over, one that counts from the start is all that there is: of
	// a CA that was set up anew.
	clock.add(10 * day)
	srv.set(bytesOf(s.crl(s.inter, func(l *x509.RevocationList) {
		l.Number, l.ThisUpdate, l.NextUpdate = big.NewInt(1), clock.now(), clock.now().Add(day)
	})))
	judge(twin.Cert, false)
}

func TestPlaces(t *testing.T) {
	s := newSite(t)
	f, _ := newFetcher(t)
	var list []string
	for _, u := range []string{"https://x.test/", "ftp://x.test/", "http:///x", "http://u:p@x.test/", "x", "http://x.test/" + strings.Repeat("x", 1100)} {
		if _, err := url.Parse(u); err != nil {
			t.Fatal(err)
		}
		list = append(list, u)
	}
	s.at(ca.OCSPAt(list...))
	if _, err := f.OCSP(t.Context(), s.leaf.Cert, s.inter.Cert); !errors.Is(err, revoke.ErrNoSource) {
		t.Error(err)
	}
}
