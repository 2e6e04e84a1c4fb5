package upstream

import (
	"log/slog"
	"sync"
	"time"
)

// Spec says what a server is, and how it comes to count as up or down.
type Spec struct {
	Addr string // CARRIER://WHERE, as configured
	// ID is by what a reload knows the server again: two of one address that are
	// asked in different ways are two.
	ID   string
	Rise int // checks that must pass in a row, once it is down
	Fall int // checks or connections that must fail in a row, while it is up
	// Check asks it, at intervals; nil: nobody does while it is up.
	Check *Check
	// Probe asks one that has no Check and went down by connections that failed;
	// nil: it is tried again after a while.
	Probe *Check
	// Alone is a server beside which there is none, and which nobody asks: it is
	// dialled whatever happened before, so that whether it is up is not kept.
	Alone bool
}

// Server is what is known of one server.
type Server struct {
	spec    Spec // but for how this program asks it: see Set.asks
	checked bool // somebody asks it at intervals
	log     *slog.Logger
	fell    chan<- struct{} // told when it goes down, without waiting

	mu      sync.Mutex
	routes  []string // that have it; see Set.tellRoutes
	down    bool
	drained bool // taken out by hand
	failed  int  // in a row
	passed  int  // in a row, while down
	flows   int
	since   time.Time // when it last went down or came back; zero: never
	back    time.Time // when it last came back
	err     error     // the last one of a check or connection; nil: the last one was good
	errAt   time.Time
}

// pass notes a check that passed, or a connection that was made.
func (s *Server) pass(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = 0
	if !s.down {
		s.err, s.errAt = nil, time.Time{} // it is over
		return
	}
	if s.passed++; s.passed < s.rise() {
		return
	}
	lasted := now.Sub(s.since)
	s.down, s.since, s.back, s.passed = false, now, now, 0
	s.err, s.errAt = nil, time.Time{}
	s.log.Info("server up", "server", s.spec.Addr, "routes", s.routes, "down_for", lasted.Round(time.Millisecond))
}

// rise is 1 where no check is configured: a server that its flows have found to be
// down is back with the first connection it takes.
func (s *Server) rise() int {
	if !s.checked {
		return 1
	}
	return s.spec.Rise
}

// fail notes a check or a connection that failed.
func (s *Server) fail(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.errAt, s.passed = err, now, 0
	if s.spec.Alone || s.down {
		return
	}
	if s.failed++; s.failed < s.spec.Fall {
		return
	}
	s.down, s.since, s.failed = true, now, 0
	s.log.Warn("server down", "server", s.spec.Addr, "routes", s.routes, "err", err.Error())
	s.tell()
}

// tell has the servers that are down be looked at.
func (s *Server) tell() {
	select {
	case s.fell <- struct{}{}:
	default: // they will be
	}
}

// retry has a server that nobody can ask be tried again.
func (s *Server) retry(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.down {
		return
	}
	// One more failure, and it is down again.
	s.down, s.since, s.failed = false, now, s.spec.Fall-1
	s.log.Info("server is tried again", "server", s.spec.Addr, "routes", s.routes)
}

func (s *Server) isDown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

// join counts a flow, and leave the end of it.
func (s *Server) join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flows++
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flows--
}

// condition is what choosing goes by.
type condition struct {
	up, drained bool
	flows       int
	back        time.Time
}

func (s *Server) condition() condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return condition{up: !s.down, drained: s.drained, flows: s.flows, back: s.back}
}

// follow takes over what is known of the same address by another ID. Flows are
// left to where they joined.
func (s *Server) follow(before *Server) {
	before.mu.Lock()
	defer before.mu.Unlock()
	s.drained = before.drained
	if !s.spec.Alone {
		s.down, s.since, s.back, s.err, s.errAt = before.down, before.since, before.back, before.err, before.errAt
	}
}
