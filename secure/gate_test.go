package secure

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// waits says whether a read would wait.
func (g *gate) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.pass()
}

func inBubble(t *testing.T, f func(t *testing.T, g *gate)) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		g.init()
		f(t, g)
	})
}

func TestGateLetsReadersThrough(t *testing.T) {
	for name, open := range map[string]func(g *gate){
		"a record":                   func(g *gate) { g.add(1) },
		"the end":                    func(g *gate) { g.finish(nil) },
		"a deadline in the past":     func(g *gate) { g.deadline(time.Unix(1, 0)) },
		"a deadline, once it passes": func(g *gate) { g.deadline(time.Now().Add(time.Minute)) },
		"a deadline brought forward": func(g *gate) {
			g.deadline(time.Now().Add(time.Hour))
			g.deadline(time.Now().Add(time.Second))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, g *gate) {
				var through, woken atomic.Int32
				go func() { g.wait(); through.Add(1) }()
				g.when(func() { woken.Add(1) })
				synctest.Wait()
				if through.Load() != 0 || woken.Load() != 0 {
					t.Fatal("nothing was to be read")
				}
				start := time.Now()
				open(g)
				time.Sleep(time.Minute)
				synctest.Wait()
				if through.Load() != 1 || woken.Load() != 1 || time.Since(start) != time.Minute {
					t.Errorf("%d came through, %d were woken", through.Load(), woken.Load())
				}
				// Who comes when it is open need not wait, and is called at once.
				g.wait()
				g.when(func() { woken.Add(1) })
				synctest.Wait()
				if woken.Load() != 2 {
					t.Errorf("%d were woken", woken.Load())
				}
			})
		})
	}
}

func TestGateStaysShut(t *testing.T) {
	for name, do := range map[string]func(g *gate){
		"records without data":    func(g *gate) { g.add(0) },
		"a deadline taken back":   func(g *gate) { g.deadline(time.Now().Add(time.Second)); g.deadline(time.Time{}) },
		"a deadline put off":      func(g *gate) { g.deadline(time.Now().Add(time.Second)); g.deadline(time.Now().Add(time.Hour)) },
		"a past one, taken back":  func(g *gate) { g.deadline(time.Unix(1, 0)); g.deadline(time.Time{}) },
		"a record that was given": func(g *gate) { g.add(1); g.wait(); g.leave(true) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, g *gate) {
				do(g)
				called := false
				g.when(func() { called = true })
				time.Sleep(time.Minute)
				synctest.Wait()
				if called || !g.waits() {
					t.Error("it is open")
				}
				g.deadline(time.Time{}) // no timer outlives the bubble
			})
		})
	}
}

func TestGateCountsRecords(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate) {
		g.add(2)
		g.add(1)
		for i := range 3 {
			if g.waits() || !g.left() {
				t.Fatalf("%d of 3 were taken, and it is shut", i)
			}
			g.wait()
			g.leave(true)
		}
		if !g.waits() || g.left() {
			t.Error("all 3 were taken, and it is open")
		}
		g.add(1)
		g.wait()
		g.leave(false) // for its deadline, say
		if g.waits() {
			t.Error("one is left, and it is shut")
		}
	})
}

// Records that held nothing are forgotten, but only where it is sure that nothing of
// them is under way.
func TestGateSettles(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate) {
		held := 0
		g.know(func() int { return held })
		g.rest()
		g.add(5) // the engine has them
		if g.waits() {
			t.Error("shut while the engine looks at them")
		}
		held = 1 // only one was authentic
		g.rest()
		if g.waits() {
			t.Error("shut while one waits to be read")
		}
		g.wait()
		held = 0
		g.add(2) // while it is given
		g.rest()
		if g.waits() {
			t.Error("counted anew while a reader was out")
		}
		g.leave(true)
		if !g.waits() {
			t.Error("open, and the engine has nothing")
		}
		g.add(1)
		g.wait()
		g.rest() // it was forged; the reader waits inside
		g.leave(false)
		if !g.waits() {
			t.Error("open after a reader came back with nothing")
		}
		called := make(chan struct{})
		g.when(func() { close(called) })
		g.add(1)
		<-called
	})
}

func TestGateNotesWhyOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, g *gate) {
		n := 0
		g.finish(func() { n++ })
		g.finish(nil)
		if n != 1 || g.waits() {
			t.Errorf("noted %d times", n)
		}
	})
}
