package revoke_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/revoke"
)

// stapling is a Stapler at work over a site.
type stapling struct {
	*site
	srv    *server
	clock  *clock
	said   *said
	stop   func()
	staple func() []byte
	add    func()
}

func staple(t *testing.T, s *site, srv *server, clock *clock, dir string) *stapling {
	t.Helper()
	st := &stapling{site: s, srv: srv, clock: clock, said: new(said)}
	cache := newCache(t, clock, dir, st.said)
	stapler := revoke.NewStapler(cache.Fetcher("own", http.DefaultClient), func(_ bool, text string) { st.said.add(text) })
	own := stapler.Of(s.leaf.Cert, s.inter.Cert)
	st.staple, st.add = own.Staple, stapler.Wake
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { stapler.Run(ctx, []*revoke.Stapled{own}); close(done) }()
	st.stop = func() { cancel(); <-done; cache.Close() }
	t.Cleanup(st.stop)
	return st
}

// has waits until what is stapled is want; each look is also a poke.
func (s *stapling) has(want []byte) {
	s.Helper()
	until(s.T, "that staple", func() bool { s.add(); return bytes.Equal(s.staple(), want) })
}

func TestStapler(t *testing.T) {
	s := newSite(t)
	srv := newServer(t, nil)
	s.at(ca.OCSPAt(srv.URL))
	first := s.good()
	srv.set(bytesOf(first))
	c := new(clock)
	c.set(now)
	dir := t.TempDir()
	st := staple(t, s, srv, c, dir)
	st.has(first)
	if n := srv.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	// Half of its time has passed, and the jitter.
	s.status.This, s.status.Next = now.Add(45*time.Hour), now.Add(5*day)
	second := s.good()
	srv.set(bytesOf(second))
	c.add(46 * time.Hour)
	st.has(second)
	// Over a restart without a responder.
	st.stop()
	srv.set(down)
	st = staple(t, s, srv, c, dir)
	st.has(second)
	// Never past nextUpdate, not by a second.
	c.set(s.status.Next.Add(-time.Second))
	st.has(second)
	c.add(time.Second)
	if st.staple() != nil {
		t.Error("stapled past nextUpdate")
	}
	c.add(time.Second)
	until(t, "word of it", func() bool { st.add(); return st.said.has("is served without a stapled answer") })
	// It comes back by itself.
	s.status.This, s.status.Next = c.now(), c.now().Add(day)
	third := s.respondAt(c.now())
	srv.set(bytesOf(third))
	until(t, "a staple", func() bool { c.add(time.Minute); st.add(); return bytes.Equal(st.staple(), third) })
	until(t, "word of it", func() bool { return st.said.has("has a stapled answer again") })
}

func (s *site) respondAt(at time.Time) []byte {
	s.Helper()
	der, err := s.delegate.Respond(at, s.status)
	if err != nil {
		s.Fatal(err)
	}
	return der
}

func TestStaplerCries(t *testing.T) {
	for _, c := range []struct {
		name string
		opts []ca.Option
		set  func(*site, *server)
		want string
	}{
		{"must-staple", []ca.Option{ca.MustStaple()}, func(_ *site, srv *server) { srv.set(down) }, "ASKS FOR A STAPLED ANSWER AND HAS NONE"},
		{"plain", nil, func(_ *site, srv *server) { srv.set(down) }, "is served without a stapled answer"},
		{"revoked", nil, func(s *site, srv *server) { srv.set(bytesOf(s.revoked())) }, "WAS REVOKED on 2026-11-25"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			srv := newServer(t, nil)
			s.at(append(c.opts, ca.OCSPAt(srv.URL))...)
			c.set(s, srv)
			clock := new(clock)
			clock.set(now)
			st := staple(t, s, srv, clock, "")
			until(t, fmt.Sprintf("%q", c.want), func() bool { return st.said.has(c.want) })
			for range 20 {
				st.add()
			}
			if st.staple() != nil {
				t.Error("stapled")
			}
			st.stop()
			if n := len(st.said.list); n != 1 {
				t.Errorf("said %d times: %q", n, st.said.list)
			}
		})
	}
}

// A certificate that names no responder is normal; an issuer that is not there is
// fetched; a reload takes no answer away, and drops what is not ours any more.
func TestStaplerReload(t *testing.T) {
	s := newSite(t)
	c := new(clock)
	c.set(now)
	said := new(said)
	f := newCache(t, c, "", said).Fetcher("own", http.DefaultClient)
	stapler := revoke.NewStapler(f, func(_ bool, text string) { said.add(text) })
	if stapler.Of(s.leaf.Cert, s.inter.Cert) != nil {
		t.Error("there is one to ask")
	}
	srv := newServer(t, nil)
	srv.set(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/issuer" {
			w.Write(s.inter.Cert.Raw)
		} else {
			w.Write(s.good())
		}
	})
	s.at(ca.OCSPAt(srv.URL+"/ocsp"), ca.AIAAt(srv.URL+"/issuer"))
	run := func(own ...*revoke.Stapled) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { stapler.Run(ctx, own); close(done) }()
		return func() { cancel(); <-done }
	}
	first := stapler.Of(s.leaf.Cert, nil)
	stop := run(first)
	until(t, "staple", func() bool { return first.Staple() != nil })
	srv.set(down)
	second := stapler.Of(s.leaf.Cert, nil)
	if second != first || second.Staple() == nil {
		t.Error("a reload takes the answer away")
	}
	stop()
	run()() // without it
	if stapler.Of(s.leaf.Cert, s.inter.Cert) == first {
		t.Error("what is not ours any more is kept")
	}
	if len(said.list) > 0 {
		t.Error(said.list)
	}
}

func TestMustStaple(t *testing.T) {
	s := newSite(t, ca.MustStaple())
	if !revoke.MustStaple(s.leaf.Cert) || revoke.MustStaple(s.inter.Cert) {
		t.Error("must-staple is misread")
	}
}
