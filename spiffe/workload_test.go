package spiffe

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// An agent that has never answered has said nothing that could hold.
func TestAgentThatNeverAnswered(t *testing.T) {
	var log strings.Builder
	w, err := New("unix:///nowhere", time.Now, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	o := &watcher{w: w}
	o.OnX509ContextWatchError(errors.New("no such file"))
	if got := log.String(); !strings.Contains(got, "who needs it is refused") || strings.Contains(got, "last") {
		t.Error(got)
	}
	w.told.Store(new(told))
	o.OnX509ContextWatchError(errors.New("gone"))
	if got := log.String(); !strings.Contains(got, "what it said last holds") {
		t.Error(got)
	}
}
