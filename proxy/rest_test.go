package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/flow"
)

// restful counts how often it was told to rest.
type restful struct {
	*end
	rests atomic.Int32
}

func (r *restful) Rest() { r.rests.Add(1) }

// slumber is a relay between two ends that can rest, and what their peers hold.
type slumber struct {
	client, server *restful // the relay's
	user, service  *end     // their peers
	ended          chan error
	f              *flow.Flow
}

func sleeps(timeouts flow.Timeouts) *slumber {
	s := &slumber{client: &restful{}, server: &restful{}, ended: make(chan error, 1)}
	s.client.end, s.user = duplex()
	s.server.end, s.service = duplex()
	s.f = &flow.Flow{Start: time.Now(), Decision: &flow.Decision{Timeouts: timeouts}}
	go relayed(s.f, s.client, s.server, func(err error) { s.ended <- err })
	synctest.Wait()
	return s
}

// tell has one peer write and the other read it.
func tell(t *testing.T, from, to *end, text string) {
	t.Helper()
	if _, err := from.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, len(text))
	if _, err := io.ReadFull(to, p); err != nil || string(p) != text {
		t.Fatalf("read %q, %v", p, err)
	}
}

func (s *slumber) wantRests(t *testing.T, n int32) {
	t.Helper()
	time.Sleep(restAfter + time.Millisecond)
	synctest.Wait()
	if c, v := s.client.rests.Load(), s.server.rests.Load(); c != n || v != n {
		t.Fatalf("they rested %d and %d times, want %d", c, v, n)
	}
}

func TestRestingFlowsWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bubble := runtime.NumGoroutine()
		s := sleeps(flow.Timeouts{})
		tell(t, s.user, s.service, "first")
		for i := range int32(5) {
			s.wantRests(t, i+1)
			if n := runtime.NumGoroutine(); n > bubble {
				t.Errorf("%d goroutines while it rests, %d before", n, bubble)
			}
			// One direction wakes by itself, the other with its answer.
			tell(t, s.user, s.service, fmt.Sprint("question", i))
			tell(t, s.service, s.user, fmt.Sprint("answer", i))
		}
		s.wantRests(t, 6)
		s.user.CloseWrite()
		if _, err := io.ReadAll(s.service); err != nil {
			t.Error(err)
		}
		tell(t, s.service, s.user, "a last word")
		s.service.CloseWrite()
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
	})
}

// What ends a flow ends one that rests, with the same words.
func TestRestingFlowsEnd(t *testing.T) {
	for _, c := range []struct {
		what   string
		do     func(s *slumber)
		reason flow.Reason
	}{
		{"the client resets", func(s *slumber) { s.user.Abort() }, flow.ClientReset},
		{"the server resets", func(s *slumber) { s.service.Abort() }, flow.ServerReset},
		{"from outside", func(s *slumber) { s.client.Abort(); s.server.Abort() }, flow.ServerReset},
		{"nothing moves", func(*slumber) { time.Sleep(time.Minute) }, flow.IdleTimeout},
	} {
		t.Run(c.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sleeps(flow.Timeouts{Idle: time.Minute})
				s.wantRests(t, 1)
				c.do(s)
				e := flow.AsError(<-s.ended, flow.Internal)
				if e == nil || e.Reason != c.reason && (c.what != "from outside" || e.Reason != flow.ClientReset) {
					t.Errorf("ended with %v, want %s", e, c.reason)
				}
			})
		})
	}
}

// Half of a flow may be over while the other half rests.
func TestRestAfterOneEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sleeps(flow.Timeouts{Linger: time.Minute})
		s.user.CloseWrite()
		synctest.Wait()
		time.Sleep(restAfter + time.Millisecond)
		synctest.Wait()
		if n := s.server.rests.Load(); n != 1 {
			t.Errorf("the server's side rested %d times", n)
		}
		tell(t, s.service, s.user, "late")
		time.Sleep(2 * time.Minute)
		if e := flow.AsError(<-s.ended, flow.Internal); e == nil || e.Reason != flow.LingerTimeout {
			t.Errorf("ended with %v", e)
		}
	})
}

// Where there is no room to rest, a flow goes on without.
func TestWithoutRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slumber{ended: make(chan error, 1)}
		near, user := duplex()
		service, far := duplex()
		f := &flow.Flow{Start: time.Now(), Decision: &flow.Decision{}}
		go relayed(f, restless{near}, restless{service}, func(err error) { s.ended <- err })
		for range 3 {
			time.Sleep(3 * restAfter)
			tell(t, user, far, "on")
			tell(t, far, user, "and on")
		}
		user.CloseWrite()
		far.CloseWrite()
		if err := <-s.ended; err != nil {
			t.Error(err)
		}
	})
}

type restless struct{ *end }

func (restless) WhenReadable(func()) error { return errors.New("no room") }

// A deadline that nobody here has set is an error, not a rest.
func TestOthersDeadlineIsNoRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sleeps(flow.Timeouts{})
		s.server.SetReadDeadline(time.Unix(1, 0))
		if err := <-s.ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	})
}
