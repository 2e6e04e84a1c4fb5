package secure

import (
	"sync"
	"time"
)

// gate says whether a read of the DTLS engine may find something. The engine only
// reads into a buffer that it is given beforehand; who waits at the gate needs
// neither a buffer nor a goroutine.
//
// It counts records that may hold data: too few would leave data lying. Those that
// held none, since they were forged or came twice, are forgotten as soon as it can
// be told that the engine has nothing: while it waits for the next datagram, and
// nobody reads.
type gate struct {
	mu      sync.Mutex
	opened  sync.Cond
	held    func() int // what the engine has read and not given; nil if that is not known
	due     int        // records handed up, less what the engine has given
	idle    bool       // the engine waits for a datagram
	reading int        // readers that were let through
	over    bool       // nothing more will come, and no read waits
	until   time.Time
	timer   *time.Timer
	wake    func() // of WhenReadable
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

// add says that the engine is handed a datagram with n records that may hold data.
func (g *gate) add(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = false
	g.due += n
	g.changed()
}

// know has it count by held from now on.
func (g *gate) know(held func() int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = held
	g.settle()
}

// rest says that the engine waits for a datagram.
func (g *gate) rest() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = true
	g.settle()
}

// leave says that a reader has come back, with something of the engine's or not.
func (g *gate) leave(took bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reading--
	if took {
		g.due--
	}
	g.settle()
}

// settle counts anew where that is possible; mu is held.
func (g *gate) settle() {
	if g.idle && g.reading == 0 && g.held != nil {
		g.due = g.held()
		g.changed()
	}
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

// wait lets a reader through, who says with leave when it is back.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.pass() {
		g.opened.Wait()
	}
	g.reading++
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
