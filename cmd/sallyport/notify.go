package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
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
	every := watchdog(s.log)
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

// watchdog is how long the service manager waits to hear that all is well; 0: it does not.
func watchdog(log *slog.Logger) time.Duration {
	every, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("the watchdog of the service manager: " + err.Error())
	}
	return every
}

// inheritManager has who is started by hand speak to the service manager of the process
// before it, which would end a main process that is not heard of.
func inheritManager(o offer) {
	if o.Notify == "" || os.Getenv("NOTIFY_SOCKET") != "" {
		return
	}
	os.Setenv("NOTIFY_SOCKET", o.Notify)
	os.Unsetenv("WATCHDOG_PID")
	if o.Watchdog > 0 {
		os.Setenv("WATCHDOG_USEC", strconv.FormatInt(o.Watchdog.Microseconds(), 10))
	}
}

// oneLine keeps what is told to its line.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
