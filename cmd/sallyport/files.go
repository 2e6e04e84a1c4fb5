package main

import (
	"log/slog"
	"os"
	"time"

	"sallyport/build"
	"sallyport/config"
	"sallyport/posture"
)

// files are those that the configuration was read from and all that it names,
// watched for changes.
type files struct {
	*posture.Watcher
	log *slog.Logger
}

func newFiles(log *slog.Logger) *files {
	w, err := posture.NewWatcher()
	if err != nil {
		log.Warn(err.Error())
	}
	return &files{w, log}
}

// survey is one reading of everything.
type survey struct {
	files *files
	since time.Time
	marks posture.Marks
	seen  []string // what config has opened
}

// begin notes how things are before they are read: what changes meanwhile has changed.
func (f *files) begin() *survey {
	return &survey{files: f, since: time.Now(), marks: f.Marks()}
}

func (r *survey) options() config.Options {
	return config.Options{Env: os.Getenv, Seen: func(path string) { r.seen = append(r.seen, path) }}
}

// needs are what running file takes; of a nil one what reading it takes.
func (r *survey) needs(file *config.File) posture.Needs {
	var n posture.Needs
	if file != nil {
		n = posture.Needs(build.PathsOf(file, os.Getenv))
	}
	n.Reads = append(n.Reads, r.seen...)
	return n
}

// done goes on with what file names.
func (r *survey) done(file *config.File) { r.watch(r.needs(file).Reads) }

// failed goes on with what runs, and with what could not be read: a change of
// either may mend it.
func (r *survey) failed(runs, read *config.File) {
	r.watch(append(build.PathsOf(runs, os.Getenv).Reads, r.needs(read).Reads...))
}

func (r *survey) watch(paths []string) {
	if err := r.files.Watch(paths, r.marks, r.since); err != nil {
		r.files.log.Warn(err.Error())
	}
}
