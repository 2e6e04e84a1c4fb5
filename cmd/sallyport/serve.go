package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"sallyport/build"
	"sallyport/config"
	"sallyport/observe"
	"sallyport/posture"
	"sallyport/proxy"
)

// serve runs what file says until a signal ends it.
func serve(ctx context.Context, file *config.File, warnings []string) error {
	log := observe.NewLogger(os.Stderr, string(file.Log.Format), level(file.Log.Level))
	program, err := ready(file, build.Options{Env: os.Getenv})
	if err != nil {
		return err
	}
	defer program.Close()
	for _, err := range posture.Harden() {
		log.Warn(err.Error())
	}
	for _, w := range append(warnings, program.Warnings...) {
		log.Warn(w)
	}
	announce(log, program)

	// Whoever read our log has gone: that is no reason to end.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	bound, err := program.Bind(ctx)
	if err != nil {
		return failure{err, exitFailed}
	}
	if err := sayListening(os.Stdout, file.Log.Format, bound); err != nil {
		log.Warn("could not write the listening lines to standard output: " + err.Error())
	}
	engine := &proxy.Engine{Observer: &observe.Records{Log: log}, Flows: flowLimit()}
	return attend(ctx, log, engine, program, signals)
}

// ready builds what file says, binding nothing.
func ready(file *config.File, o build.Options) (*build.Program, error) {
	program, err := build.New(file, o)
	if wrong := (*build.FileError)(nil); err != nil && !errors.As(err, &wrong) {
		return nil, failure{err, exitFailed}
	}
	return program, err
}

// attend serves until a signal comes, then drains.
func attend(ctx context.Context, log *slog.Logger, engine *proxy.Engine, program *build.Program, signals <-chan os.Signal) error {
	broken := make(chan error, len(program.Listeners))
	ends := ending(log, signals)
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	var serving sync.WaitGroup
	serving.Go(func() { posture.TidyUp(accepting) })
	for _, l := range program.Listeners {
		l.OnTrouble(func(err error) { log.Error("accepting", "listener", l.Name, "err", err.Error()) })
		serving.Go(func() {
			if err := engine.Serve(accepting, &l.Listener); err != nil {
				broken <- fmt.Errorf("%s: %w", l.Name, err)
			}
		})
	}
	var failed error
	select {
	case failed = <-broken:
		log.Error("a listener broke, ending", "err", failed.Error())
	case s := <-ends:
		log.Info("ending: no new connections, open ones may finish; signal again to end at once", "signal", s.String())
	}
	// Where all flows that we may have are alive, a listener waits for one of them
	// to end, and would not see that its acceptor is closed.
	stop()
	program.Unbind()
	serving.Wait()

	now, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-ends:
			cancel()
		case <-now.Done():
		}
	}()
	engine.Drain(now)
	if failed != nil {
		return failure{failed, exitFailed}
	}
	log.Info("ended")
	return nil
}

// ending gives the signals that end the process.
func ending(log *slog.Logger, signals <-chan os.Signal) <-chan os.Signal {
	c := make(chan os.Signal, cap(signals))
	go func() {
		for s := range signals {
			if s == syscall.SIGHUP {
				log.Warn("SIGHUP does not reload in this version; restart to read the file again")
				continue
			}
			c <- s
		}
	}()
	return c
}

func announce(log *slog.Logger, program *build.Program) {
	for _, l := range program.Listeners {
		for _, line := range l.Lines {
			log.Info(line.Text, attrs(line)...)
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
func sayListening(w io.Writer, format config.LogFormat, bound []build.Bound) error {
	for _, b := range bound {
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
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
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

// flowLimit leaves descriptors for files and sockets besides the two of a flow;
// further clients wait in the kernel's queue rather than fail half served.
func flowLimit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0
	}
	all := int(min(r.Cur, 1<<24))
	spare := 64 + min(2*proxy.MaxPipes, all/4)
	return max(all-spare, 8) / 2
}
