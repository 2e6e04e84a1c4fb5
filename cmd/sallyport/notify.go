package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// supervisor is who started us, where that is systemd or speaks like it: what is sent
// goes to $NOTIFY_SOCKET (sd_notify(3)), and nowhere where that is not set.
type supervisor struct{ log *slog.Logger }

func (s supervisor) tell(lines ...string) {
	if _, err := sd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		s.log.Warn("telling the service manager: " + err.Error())
	}
}

// ready says that clients are accepted, by this process: with `sallyport upgrade` it is
// not the one that was started first.
func (s supervisor) ready(status string) {
	s.tell("READY=1", fmt.Sprintf("MAINPID=%d", os.Getpid()), "STATUS="+oneLine(status))
}

// reloading says that a reload has begun; ready ends it, whatever came of it.
func (s supervisor) reloading() {
	s.tell("RELOADING=1", sd.SdNotifyMonotonicUsec(), "STATUS=reading the configuration")
}

func (s supervisor) stopping() {
	s.tell(sd.SdNotifyStopping, "STATUS=no new connections, open ones may finish")
}

// watch says that all is well, as often as the service manager asks for (WatchdogSec=),
// while alive returns.
func (s supervisor) watch(ctx context.Context, alive func()) {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		s.log.Warn("the watchdog of the service manager: " + err.Error())
	}
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every / 2)
	defer tick.Stop()
	for {
		alive()
		s.tell(sd.SdNotifyWatchdog)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// oneLine keeps what is told to its line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
