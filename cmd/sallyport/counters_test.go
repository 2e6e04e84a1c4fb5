package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/transport"
)

// Drops are said once a minute while there are any, and at the end.
func TestDropsAreSaidSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		log := slog.New(slog.NewTextHandler(&out, nil))
		var c transport.PacketCounters
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			sayDrops(ctx, log, func() string { return "here" }, &c)
		}()
		lines := func() int { synctest.Wait(); return strings.Count(out.String(), "datagrams dropped") }
		c[transport.PacketsNotDTLS].Add(3)
		c[transport.PacketsReceived].Add(5)
		time.Sleep(dropsEvery - time.Second)
		if n := lines(); n != 0 {
			t.Errorf("%d lines before a minute is over", n)
		}
		time.Sleep(2 * time.Second)
		if n, text := lines(), out.String(); n != 1 || !strings.Contains(text, "listener=here not_dtls=3\n") {
			t.Errorf("after a minute: %q", text)
		}
		time.Sleep(3 * dropsEvery)
		if n := lines(); n != 1 {
			t.Errorf("%d lines, and nothing more was dropped", n)
		}
		c[transport.PacketsUnknownCID].Add(1)
		stop()
		<-done
		if text := out.String(); !strings.HasSuffix(text, "listener=here unknown_cid=1\n") {
			t.Errorf("at the end: %q", text)
		}
	})
}
