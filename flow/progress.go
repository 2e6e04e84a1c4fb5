package flow

import "sync/atomic"

// Progress is what anybody may read of a flow while it lives. Whoever sees a stage
// may read those fields of the [Flow] too that earlier stages have written: each
// has one writer, which is done with it by then. Since some routes dial before
// they end TLS with the client, what the stages from [StageInbound] to
// [StageOutbound] write may be read once [StageRelay] is seen, and not before.
type Progress struct {
	stage atomic.Uint32
	moved [2]atomic.Int64
}

// Reach says that everything before s is done.
func (p *Progress) Reach(s Stage) {
	if p != nil {
		p.stage.Store(uint32(s))
	}
}

// Stage is the one that the flow is at.
func (p *Progress) Stage() Stage { return Stage(p.stage.Load()) }

// Moved counts n more payload bytes in direction d.
func (p *Progress) Moved(d Direction, n int64) { p.moved[d].Add(n) }

// Bytes are the payload bytes that have passed in direction d so far.
func (p *Progress) Bytes(d Direction) int64 { return p.moved[d].Load() }
