package main

import (
	"cmp"
	"context"
	"os"
	"strings"

	"sallyport/build"
	"sallyport/config"
)

// reloads reads everything anew at each signal, one at a time.
func (s *service) reloads(accepting context.Context, hups <-chan os.Signal) {
	for {
		select {
		case <-hups:
			s.reload(accepting)
		case <-accepting.Done():
			return
		}
	}
}

// reload puts a new program in the old one's place, or leaves all as it is. Flows
// that are open keep the Decision that they began with.
func (s *service) reload(accepting context.Context) {
	kept := func(err error) {
		// A hint stands on a line of its own where one reads it on a terminal.
		s.log.Error("not reloaded, what ran before goes on", "err", strings.Join(strings.Fields(err.Error()), " "))
	}
	file, err := s.read()
	if err != nil {
		kept(err)
		return
	}
	program, err := build.New(file, build.Options{Env: os.Getenv, Lasting: s.program.Lasting, Log: s.log, Poller: s.poller})
	if err != nil {
		kept(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		program.Close()
		return
	}
	change, err := program.Bind(accepting, s.program)
	if err != nil {
		program.Close()
		kept(err)
		return
	}
	for _, w := range append(program.Warnings, needsRestart(s.file, file)...) {
		s.log.Warn(w)
	}
	file.Log.Format, file.StateDir = s.file.Log.Format, s.file.StateDir
	announce(s.log, program, s.program)
	s.sayListening(change.Added)
	s.level.Set(level(file.Log.Level))
	s.apply(accepting, change)
	s.work(accepting, program)
	// The old key logs are left to the collector: handshakes that are under way
	// still write to them.
	s.file, s.program = file, program
	s.log.Info("reloaded", "added", names(change.Added), "removed", names(change.Removed), "kept", names(change.Kept))
}

func names(listeners []*build.Listener) string {
	var list []string
	for _, l := range listeners {
		list = append(list, l.Name)
	}
	return strings.Join(list, ",")
}

// needsRestart says what has changed and stays as it was.
func needsRestart(old, now *config.File) []string {
	var said []string
	if now.Log.Format != old.Log.Format {
		said = append(said, "log.format needs a restart; it stays "+string(old.Log.Format))
	}
	if now.StateDir != old.StateDir {
		said = append(said, "state_dir needs a restart; it stays "+cmp.Or(old.StateDir, "none"))
	}
	return said
}
