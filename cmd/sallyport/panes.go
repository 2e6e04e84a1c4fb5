package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"sallyport/admin"
	"sallyport/build"
	"sallyport/config"
	"sallyport/observe"
	"sallyport/transport"
	"sallyport/upstream"
)

// Bounds at the end of the process.
const (
	lastLines   = time.Second // for who takes the log
	lastAnswers = time.Second // for who looks through a pane
)

// Panes by the key of the file that names them.
const (
	paneMetrics = "metrics"
	paneAdmin   = "admin"
)

// answerWithin bounds one answer of the metrics.
const answerWithin = 30 * time.Second

// pane is an address at which the process is looked at from outside.
type pane struct {
	addr     config.Address
	listener net.Listener
	server   *admin.Server
}

// watch makes what counts and records flows.
func (s *service) watch(queue *observe.Queue) {
	s.metrics = observe.NewMetrics(versionText(), time.Now())
	s.metrics.Lost = queue.Lost
	s.metrics.Datagrams, s.metrics.Ages, s.metrics.Held = s.datagrams, s.ages, func() int { return len(s.held()) }
	s.metrics.Servers = s.servers
	s.records = &observe.Records{Log: s.log}
	s.panes = map[string]*pane{}
	s.started, s.asked, s.told = time.Now(), make(chan chan error), make(chan struct{}, 1)
}

// counts has what counts go by file and its program.
func (s *service) counts(file *config.File, program *build.Program) {
	s.records.Sample(float64(file.Log.Sample))
	list := make([]observe.Certificate, len(program.Expiries))
	for i, x := range program.Expiries {
		list[i] = observe.Certificate(x)
	}
	s.metrics.SetCertificates(list)
}

func (s *service) ages() (a observe.Ages) {
	s.mu.Lock()
	from := s.program.Ages
	s.mu.Unlock()
	if age, ok := from.LogLists(); ok {
		a.LogLists = &age
	}
	for _, one := range from.Staples() {
		a.Staples = append(a.Staples, observe.Staple(one))
	}
	return a
}

func (s *service) held() []build.Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.program.Held()
}

func (s *service) servers() (list []observe.Servers) {
	s.mu.Lock()
	pools := s.program.Servers().Pools()
	s.mu.Unlock()
	n := map[observe.Servers]int{} // a listener may have the name of another one's route
	for _, p := range pools {
		for _, state := range []upstream.State{upstream.Up, upstream.Down, upstream.Drained} {
			n[observe.Servers{Route: p.Route, State: string(state)}] += 0
		}
		for _, u := range p.Servers {
			n[observe.Servers{Route: p.Route, State: string(u.State)}]++
		}
	}
	for one, count := range n {
		one.N = count
		list = append(list, one)
	}
	return list
}

func (s *service) datagrams() (list []observe.Datagrams) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.program.Listeners {
		if c := l.PacketCounters(); c != nil {
			for i, n := range c.Snapshot() {
				list = append(list, observe.Datagrams{Listener: l.Name, Event: transport.PacketCount(i).String(), N: n})
			}
		}
	}
	return list
}

// bindPanes binds those of file that s does not have yet; one that file does not
// name any more is nil. All or none are bound.
func (s *service) bindPanes(ctx context.Context, file *config.File) (map[string]*pane, error) {
	fresh := map[string]*pane{}
	for key, addr := range map[string]config.Address{paneMetrics: file.Metrics, paneAdmin: file.Admin} {
		old := s.panes[key]
		switch {
		case old != nil && old.addr == addr:
			continue
		case addr == config.Address{}:
			fresh[key] = nil
			continue
		}
		mode := transport.Private
		if key == paneMetrics {
			mode = 0o777
		}
		l, err := transport.Window(ctx, transport.Where{Host: addr.Host, Port: addr.Port, Unix: addr.Unix, File: s.before.pane(key, addr)}, mode)
		if err != nil {
			for _, p := range fresh {
				if p != nil {
					p.listener.Close()
				}
			}
			if old != nil && old.addr.Port == addr.Port && errors.Is(err, syscall.EADDRINUSE) {
				err = fmt.Errorf("%s overlaps with %s, which is held until a restart", addr, old.addr)
			}
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		fresh[key] = &pane{addr: addr, listener: l}
	}
	return fresh, nil
}

// installPanes puts fresh ones in place of those that s has.
func (s *service) installPanes(fresh map[string]*pane) {
	for key, p := range fresh {
		if old := s.panes[key]; old != nil {
			go old.close() // who is being answered does not hold up a reload
		}
		if delete(s.panes, key); p == nil {
			continue
		}
		s.panes[key] = p
		handler, within := admin.Window(s.metrics, s.ready.Load), answerWithin
		if key == paneAdmin {
			handler, within = admin.Control(controller{s}, p.addr.Unix == ""), admin.AnswerWithin
		}
		p.server = admin.Serve(p.listener, handler, within, s.log, func() {
			s.refusals.Count(key, "connections")
			s.metrics.Limit(key, "connections")
		})
		s.log.Info(key+" answers", "addr", p.listener.Addr().String())
	}
}

func (s *service) closePanes() {
	for _, p := range s.panes {
		p.close()
	}
}

// leavePanes lets another process answer, which has been handed their sockets.
func (s *service) leavePanes() {
	for _, p := range s.panes {
		p.listener.(interface{ Leave() }).Leave()
		p.close()
	}
	s.panes = nil
}

func (p *pane) close() {
	ctx, cancel := context.WithTimeout(context.Background(), lastAnswers)
	defer cancel()
	p.server.Close(ctx)
}
