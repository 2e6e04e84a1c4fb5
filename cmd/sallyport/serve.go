package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/build"
	"sallyport/config"
	"sallyport/observe"
	"sallyport/posture"
	"sallyport/proxy"
	"sallyport/transport"
)

// serve runs what read gives until a signal ends it; SIGHUP has it read again. Where
// there is a door, its process hands over its sockets first.
func serve(ctx context.Context, read func(config.Options) (*config.File, error), warnings []string, door string) error {
	// From the start: one that comes while files are read must not end the process.
	// Each reload reads everything, so that one which waits stands for all after it.
	hups := make(chan os.Signal, 1)
	signal.Notify(hups, syscall.SIGHUP)
	defer signal.Stop(hups)

	first := &survey{since: time.Now()}
	file, err := read(first.options())
	if err != nil {
		return err
	}
	s := &service{read: read, file: file, doors: map[*build.Socket]context.CancelFunc{}, broken: make(chan error, 1), successor: make(chan int), left: make(chan struct{})}
	s.doorPath = cmp.Or(door, doorPath(os.Getenv("RUNTIME_DIRECTORY")))
	s.level.Set(level(file.Log.Level))
	queue := observe.NewQueue(os.Stderr, string(file.Log.Format))
	defer queue.Close(lastLines)
	s.log = observe.NewLogger(queue, string(file.Log.Format), &s.level)
	s.watch(queue)
	s.manager = supervisor{s.log}
	if s.poller, err = transport.NewPoller(); err != nil {
		return failure{err, exitFailed}
	}
	defer s.poller.Close()
	if s.user, err = chosen(file, s.log.Warn); err != nil {
		return failure{err, exitFailed}
	}
	if err = settle(s.user, file); err != nil {
		return failure{err, exitFailed}
	}
	if s.program, err = readyAs(s.user, first.needs(file), file, build.Options{Env: os.Getenv, Log: s.log, Poller: s.poller}); err != nil {
		return err
	}
	defer func() {
		s.program.Close()
		s.program.Lasting.Close()
	}()
	s.counts(file, s.program)
	first.files = newFiles(s.log)
	first.done(file)
	s.files = first.files
	defer s.files.Close()
	for _, err := range posture.Harden() {
		s.log.Warn(err.Error())
	}
	s.sayTroubles(s.program, warnings)
	announce(s.log, s.program, nil)

	// Whoever read our log has gone: that is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	ends := make(chan os.Signal, 2) // the second ends at once
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(ends)

	defer func() { s.before.Close() }()
	if err = s.inherit(door); err != nil {
		return failure{err, exitFailed}
	}
	s.engine = &proxy.Engine{Observer: observe.Observers{s.metrics, s.records}, Limited: func(listener string, l proxy.Limit) {
		s.refusals.Count(listener, string(l))
		s.metrics.Limit(listener, string(l))
	}}
	s.limit(file.Limits)
	posture.TidyStart()
	change, panes, err := s.bindFirst(ctx, first.needs(file))
	if err != nil {
		return failure{err, exitFailed}
	}
	s.sayListening(change.Added)
	s.installPanes(panes)
	defer s.closePanes()
	return s.attend(ctx, change, hups, ends)
}

// bindFirst binds all that the process listens on, and confines it to what it needs then.
func (s *service) bindFirst(ctx context.Context, needs posture.Needs) (*build.Change, map[string]*pane, error) {
	change, err := s.program.Bind(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	panes, err := s.bindPanes(ctx, s.file)
	if err != nil {
		return nil, nil, err
	}
	if s.before != nil {
		s.before.release()
	}
	s.umask = posture.Umask(posture.Private)
	if !s.user.Acting() {
		for _, path := range needs.Listens {
			if err := s.user.Give(path); err != nil {
				return nil, nil, err
			}
		}
	}
	if s.doorPath != "" {
		needs.Listens = append(needs.Listens, s.doorPath)
	}
	return change, panes, s.confine(needs)
}

// ready builds what file says, binding nothing.
func ready(file *config.File, o build.Options) (*build.Program, error) {
	program, err := build.New(file, o)
	if wrong := (*build.FileError)(nil); err != nil && !errors.As(err, &wrong) {
		return nil, failure{err, exitFailed}
	}
	return program, err
}

// service is the process while it serves.
type service struct {
	read     func(config.Options) (*config.File, error)
	files    *files
	user     posture.User     // whom it becomes once all is bound
	umask    int              // of the start, which unix sockets follow
	sandbox  *posture.Sandbox // nil: it goes without
	log      *slog.Logger
	level    slog.LevelVar
	engine   *proxy.Engine
	refusals observe.Refusals
	poller   *transport.Poller
	panes    map[string]*pane
	started  time.Time
	asked    chan chan error // reloads by the control socket
	told     chan struct{}   // to end, by the control socket
	metrics  *observe.Metrics
	records  *observe.Records
	ready    atomic.Bool // it takes new connections
	broken   chan error  // the first listener's that does not accept any more

	flowsFrom string // where the engine's bound of flows comes from

	doorPath  string        // where the next process comes; "": nowhere
	before    *predecessor  // whose sockets we took over; nil: nobody's
	upgrading sync.Mutex    // held while sockets are handed over, and by a reload
	successor chan int      // the process that has taken over
	taken     atomic.Bool   // one has: whatever else ends this one, the sockets are not its own any more
	left      chan struct{} // closed once nothing is accepted here any more

	mu      sync.Mutex // held while listeners come and go
	manager supervisor
	file    *config.File
	program *build.Program
	doors   map[*build.Socket]context.CancelFunc // those that accept
	working context.CancelFunc                   // ends the work of program
	ending  bool
	serving sync.WaitGroup
}

// attend serves until a signal comes, then drains.
func (s *service) attend(ctx context.Context, change *build.Change, hups, ends <-chan os.Signal) error {
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	s.mu.Lock()
	s.apply(accepting, change)
	s.work(accepting, s.program)
	s.mu.Unlock()
	s.ready.Store(true)
	s.serving.Go(func() { posture.TidyUp(accepting) })
	s.serving.Go(func() { s.refusals.Say(accepting, s.log) })
	go s.reloads(accepting, hups)
	if s.before != nil {
		s.upgrading.Lock() // no reload in between: none may remove what begins
		if err := s.before.begun(); err != nil {
			s.log.Warn(err.Error())
		}
		s.program.Begin()
		s.upgrading.Unlock()
	}
	s.openDoor(accepting)
	s.tellReady(nil)
	//lint:ignore SA2001 that the lock can be had is what there is to know
	s.serving.Go(func() { s.manager.watch(accepting, func() { s.mu.Lock(); s.mu.Unlock() }) })
	var failed error
	select {
	case failed = <-s.broken:
		s.log.Error("a listener broke, ending", "err", failed.Error())
	case sig := <-ends:
		s.log.Info("ending: no new connections, open ones may finish; signal again to end at once", "signal", sig.String())
	case <-s.told:
		s.log.Info("ending: no new connections, open ones may finish; signal to end at once", "by", "admin")
	case <-s.successor:
	}
	s.unbind(stop, s.taken.Load())
	close(s.left)
	s.serving.Wait()

	now, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case sig := <-ends:
			cancel(fmt.Errorf("a further signal (%s) ended it before timeouts.drain had passed", sig))
		case <-now.Done():
		}
	}()
	s.engine.Drain(now)
	if failed != nil {
		return failure{failed, exitFailed}
	}
	s.log.Info("ended")
	return nil
}

// apply opens and closes listeners as c says. s.mu is held.
func (s *service) apply(accepting context.Context, c *build.Change) {
	for _, l := range c.Kept {
		l.Install()
	}
	for _, l := range c.Added {
		s.open(accepting, l)
	}
	for _, l := range c.Removed {
		// Where all flows that we may have are alive, a listener waits for one of
		// them to end, and would not see that its acceptor is closed.
		s.doors[l.Socket]()
		delete(s.doors, l.Socket)
		l.Acceptor.Close()
	}
}

func (s *service) open(accepting context.Context, l *build.Listener) {
	ctx, stop := context.WithCancel(accepting)
	s.doors[l.Socket] = stop
	l.OnTrouble(func(err error) { s.log.Error("accepting", "listener", l.Current.Load().Name, "err", err.Error()) })
	if c := l.PacketCounters(); c != nil {
		s.serving.Go(func() { sayDrops(ctx, s.log, func() string { return l.Current.Load().Name }, c) })
	}
	s.serving.Go(func() {
		defer stop()
		if err := s.engine.Serve(ctx, l.Acceptor, &l.Current); err != nil {
			select {
			case s.broken <- fmt.Errorf("%s: %w", l.Current.Load().Name, err):
			default: // one is enough to end
			}
		}
	})
}

// work has program's own work done, in place of that of the one before it, until
// nothing is accepted any more. s.mu is held.
func (s *service) work(accepting context.Context, program *build.Program) {
	if s.working != nil {
		s.working()
	}
	ctx, stop := context.WithCancel(accepting)
	s.working = stop
	for _, f := range program.Work {
		s.serving.Go(func() { f(ctx) })
	}
}

// unbind ends accepting, for good. Nobody waits for a reload that is still reading.
func (s *service) unbind(stop func(), handed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	s.ready.Store(false)
	if handed { // the service manager has been told who is in our place
		s.program.Leave()
		stop()
		s.leavePanes()
		return
	}
	s.manager.stopping()
	stop()
	s.program.Unbind()
}

// announce says what program does, but for what old did as well.
func announce(log *slog.Logger, program, old *build.Program) {
	known := map[build.Line]bool{}
	if old != nil {
		for _, l := range old.Listeners {
			for _, line := range l.Lines {
				known[line] = true
			}
		}
	}
	for _, l := range program.Listeners {
		for _, line := range l.Lines {
			if !known[line] {
				log.Info(line.Text, attrs(line)...)
			}
		}
	}
}

func attrs(line build.Line) []any {
	said := []any{"route", line.Route, "clients", line.Clients}
	for _, a := range []struct{ key, text string }{{"in", line.Inbound}, {"out", line.Outbound}, {"note", line.Note}} {
		if a.text != "" {
			said = append(said, a.key, a.text)
		}
	}
	return said
}

// sayListening writes one line a listener, the only thing on standard output.
func (s *service) sayListening(listeners []*build.Listener) {
	for _, l := range listeners {
		if err := writeListening(os.Stdout, s.file.Log.Format, l.Bound()); err != nil {
			s.log.Warn("could not write the listening lines to standard output: " + err.Error())
			return
		}
	}
}

func writeListening(w io.Writer, format config.LogFormat, b build.Bound) error {
	line := fmt.Sprintf("listening name=%s from=%s addr=%s", b.Name, b.From, b.Addr)
	if format == config.FormatJSON {
		text, err := json.Marshal(struct {
			Msg  string `json:"msg"`
			Name string `json:"name"`
			From string `json:"from"`
			Addr string `json:"addr"`
		}{"listening", b.Name, b.From, b.Addr})
		if err != nil {
			return err
		}
		line = string(text)
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

func level(l config.LogLevel) slog.Level {
	switch l {
	case config.LevelDebug:
		return slog.LevelDebug
	case config.LevelWarn:
		return slog.LevelWarn
	case config.LevelError:
		return slog.LevelError
	}
	return slog.LevelInfo
}
