package secure

import (
	"sync"
	"time"
)

// gate says whether a read of the DTLS engine may find something. The engine only
// reads into a buffer that it is given beforehand; who waits at the gate needs
// neither a buffer nor a goroutine.
//
// It counts records that may hold data. Too many counted cost a buffer that waits;
// too few would leave data lying, so whatever may be data is counted.
type gate struct {
	mu     sync.Mutex
	opened sync.Cond
	due    int  // records handed up, less what the engine has given
	over   bool // nothing more will come, and no read waits
	until  time.Time
	timer  *time.Timer
	wake   func() // of WhenReadable
}

func (g *gate) init() { g.opened.L = &g.mu }

// pass says whether a read would not wait; mu is held.
func (g *gate) pass() bool {
	return g.due > 0 || g.over || !g.until.IsZero() && !time.Now().Before(g.until)
}

// changed lets out who waits; mu is held.
func (g *gate) changed() {
	if !g.pass() {
		return
	}
	g.opened.Broadcast()
	if f := g.wake; f != nil {
		g.wake = nil
		go f()
	}
}

func (g *gate) add(n int) {
	if n == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.due += n
	g.changed()
}

// took says that the engine has given something.
func (g *gate) took() (more bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.due--
	return g.due > 0
}

func (g *gate) left() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.due > 0
}

func (g *gate) finish(note func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if note != nil {
		note()
	}
	g.over = true
	g.changed()
}

func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.pass() {
		g.opened.Wait()
	}
}

// when has f called once a read would not wait.
func (g *gate) when(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wake = f
	g.changed()
}

func (g *gate) deadline(t time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until = t
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
	if left := time.Until(t); !t.IsZero() && left > 0 {
		g.timer = time.AfterFunc(left, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.changed()
		})
	}
	g.changed()
}
