package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/build"
	"sallyport/config"
	"sallyport/credential"
	"sallyport/posture"
)

// Why a reload is made.
const (
	bySignal = "signal"
	byAdmin  = "admin"
	byFiles  = "files"
)

// reloads reads everything anew at each signal and at each change of the files, one
// at a time.
func (s *service) reloads(accepting context.Context, hups <-chan os.Signal) {
	changed := make(chan struct{}, 1)
	go s.files.Run(accepting, changed)
	for {
		select {
		case <-hups:
			s.reload(accepting, bySignal)
		case came := <-s.asked:
			came <- s.reload(accepting, byAdmin)
		case <-changed:
			s.reload(accepting, byFiles)
		case <-accepting.Done():
			return
		}
	}
}

// reload puts a new program in the old one's place, or leaves all as it is. Flows
// that are open keep the Decision that they began with.
func (s *service) reload(accepting context.Context, cause string) error {
	s.upgrading.Lock()
	defer s.upgrading.Unlock()
	if s.taken.Load() {
		return errTaken
	}
	s.manager.reloading()
	err := s.replace(accepting, cause)
	s.metrics.Reloaded(time.Now(), err)
	defer s.tellReady(err)
	if err != nil {
		// A hint stands on a line of its own where one reads it on a terminal.
		text := strings.Join(strings.Fields(err.Error()), " ")
		if cause == byFiles && errors.Is(err, credential.ErrUnpaired) {
			s.log.Warn("a certificate and its key do not fit: waiting for the other file, what ran before goes on", "err", text)
			return err
		}
		s.log.Error("not reloaded, what ran before goes on", "cause", cause, "err", text)
	}
	return err
}

// tellReady tells the service manager that clients are served, and what came of the
// last reload.
func (s *service) tellReady(reload error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ending: // which has been told
	case reload != nil:
		s.manager.ready("not reloaded, what ran before goes on: " + reload.Error())
	default:
		s.manager.ready(fmt.Sprintf("listeners: %s", names(s.program.Listeners)))
	}
}

func (s *service) replace(accepting context.Context, cause string) error {
	survey := s.files.begin()
	file, err := s.read(survey.options())
	if err != nil {
		survey.failed(s.file, nil)
		read := survey.needs(nil)
		return cmp.Or(s.inside(read), s.denied(read), err)
	}
	needs := survey.needs(file)
	if err := s.inside(needs); err != nil {
		survey.failed(s.file, file)
		return err
	}
	program, err := build.New(file, build.Options{Env: os.Getenv, Lasting: s.program.Lasting, Log: s.log, Poller: s.poller})
	if err != nil {
		survey.failed(s.file, file)
		return s.givenUp(needs, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		program.Close()
		return nil
	}
	change, panes, err := s.bind(accepting, program, file)
	if err != nil {
		program.Close()
		survey.failed(s.file, file)
		return s.givenUp(needs, err)
	}
	survey.done(file)
	s.sayTroubles(program, needsRestart(stays(s.file), stays(file)))
	file.Log.Format, file.StateDir, file.Unsafe.NoSandbox, file.Limits, file.User = s.file.Log.Format, s.file.StateDir, s.file.Unsafe.NoSandbox, s.file.Limits, s.file.User
	announce(s.log, program, s.program)
	s.sayListening(change.Added)
	s.level.Set(level(file.Log.Level))
	s.apply(accepting, change)
	s.installPanes(panes)
	s.counts(file, program)
	s.work(accepting, program)
	// The old key logs are left to the collector: handshakes that are under way
	// still write to them.
	s.file, s.program = file, program
	s.log.Info("reloaded", "cause", cause, "added", names(change.Added), "removed", names(change.Removed), "kept", names(change.Kept))
	return nil
}

// sayTroubles logs what is not as it should be in program, and more.
func (s *service) sayTroubles(program *build.Program, more []string) {
	for _, e := range program.Errors {
		s.log.Error(e)
	}
	for _, w := range slices.Concat(more, program.Warnings) {
		s.log.Warn(w)
	}
}

// bind binds what program and file have and s has not, or nothing. A unix socket that
// comes later is as open as those of the start.
func (s *service) bind(ctx context.Context, program *build.Program, file *config.File) (*build.Change, map[string]*pane, error) {
	ours := posture.Umask(s.umask)
	defer posture.Umask(ours)
	change, err := program.Bind(ctx, s.program)
	if err != nil {
		return nil, nil, err
	}
	panes, err := s.bindPanes(ctx, file)
	if err != nil {
		for _, l := range change.Added {
			l.Acceptor.Close()
		}
	}
	return change, panes, err
}

func names(listeners []*build.Listener) string {
	var list []string
	for _, l := range listeners {
		list = append(list, l.Name)
	}
	return strings.Join(list, ",")
}

// stays are the settings that a process keeps until it ends, by their keys.
func stays(f *config.File) map[string]string {
	dir := f.StateDir
	if abs, err := filepath.Abs(dir); err == nil && dir != "" {
		dir = abs
	}
	return map[string]string{
		"log.format": string(f.Log.Format), "state_dir": dir, "user": f.User,
		"unsafe.no_sandbox": strconv.FormatBool(bool(f.Unsafe.NoSandbox)), "limits": fmt.Sprintf("%+v", f.Limits),
	}
}

// needsRestart says what has changed and stays as it was.
func needsRestart(old, now map[string]string) []string {
	var said []string
	for _, c := range []struct{ key, text string }{
		{"log.format", "log.format needs a restart; it stays " + old["log.format"]},
		{"unsafe.no_sandbox", "unsafe.no_sandbox needs a restart"},
		{"user", "user needs a restart; it stays " + cmp.Or(old["user"], "as at the start")},
		{"limits", "the process's limits need a restart; they stay"},
		{"state_dir", "state_dir needs a restart; it stays " + cmp.Or(old["state_dir"], "none")},
	} {
		if was, known := old[c.key]; known && was != now[c.key] {
			said = append(said, c.text)
		}
	}
	return said
}
