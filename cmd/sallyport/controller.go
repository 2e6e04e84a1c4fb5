package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"sallyport/admin"
)

// controller is what the control socket may do with the service.
type controller struct{ *service }

var _ admin.Controller = controller{}

// Status implements [admin.Controller].
func (c controller) Status() admin.Status {
	s := c.service
	good, failed := s.metrics.Reloads()
	sum := s.metrics.Sum()
	st := admin.Status{
		Version: versionText(), PID: os.Getpid(), Started: s.started, Loaded: s.metrics.Loaded(), Ready: s.ready.Load(),
		Reloads: good, Failed: failed, LostLines: s.metrics.Lost(), Open: sum.Open, Ended: sum.Ended, Up: sum.Up, Down: sum.Down,
	}
	if s.engine.Flows > 0 {
		st.Most, st.MostFrom = s.engine.Flows, s.flowsFrom
	}
	for _, x := range s.metrics.Certificates() {
		st.Certificates = append(st.Certificates, admin.Certificate(x))
	}
	for _, h := range s.held() {
		st.Held = append(st.Held, admin.Held(h))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.program.Listeners {
		st.Listeners = append(st.Listeners, admin.Listener(l.Bound()))
	}
	for _, p := range s.program.Servers().Pools() {
		for _, u := range p.Servers {
			st.Servers = append(st.Servers, admin.Upstream{Route: p.Route, Addr: u.Addr, State: string(u.State), Since: u.Since, Flows: u.Flows, Err: u.Err, Service: u.Service})
		}
	}
	return st
}

// Sandbox implements [admin.Controller].
func (c controller) Sandbox() admin.Sandbox {
	has := admin.Sandbox{UID: os.Geteuid(), GID: os.Getegid()}
	has.Groups, _ = os.Getgroups() // which cannot fail: it asks for as many as there are
	if s := c.sandbox; s != nil {
		has.Landlock, has.Dropped, has.Folders = s.Landlock, s.Dropped, admin.Folders(s.Folders)
	}
	has.StateDirectory, _, _ = strings.Cut(os.Getenv("STATE_DIRECTORY"), ":")
	c.mu.Lock()
	defer c.mu.Unlock()
	has.Stays = stays(c.file)
	for _, key := range c.file.Given {
		delete(has.Stays, key)
	}
	has.Bound = c.program.Places()
	for _, p := range c.panes {
		has.Bound = append(has.Bound, p.addr.String())
	}
	return has
}

// Flows implements [admin.Controller].
func (c controller) Flows(most int) admin.Flows {
	list, all := c.metrics.Alive(most)
	return admin.Flows{All: all, List: list}
}

var (
	errEnding = errors.New("the process is ending")
	errTaken  = errors.New("another process has just taken over\nhint: the same command asks that one now")
)

// Reload implements [admin.Controller]: it waits for its turn among the others.
func (c controller) Reload(ctx context.Context) error {
	if !c.ready.Load() {
		return errEnding
	}
	came := make(chan error, 1)
	select {
	case c.asked <- came:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-came:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Drain implements [admin.Controller]. It waits for a reload or a handover that is
// under way, so that what comes of that knows of it.
func (c controller) Drain(ctx context.Context, server string, back bool) error {
	c.upgrading.Lock()
	defer c.upgrading.Unlock()
	switch {
	case ctx.Err() != nil: // who asked has been told that it came to nothing
		return ctx.Err()
	case c.taken.Load():
		return errTaken
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if back {
		return c.program.Servers().Undrain(server)
	}
	return c.program.Servers().Drain(server)
}

// End implements [admin.Controller].
func (c controller) End() {
	select {
	case c.told <- struct{}{}:
	default: // it has been told already
	}
}

// Kill implements [admin.Controller].
func (c controller) Kill(id uint64) bool { return c.engine.Kill(id) }
