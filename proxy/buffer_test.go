package proxy

import "testing"

// Where many wait for readers that have stopped, those that come later read little at
// once, and much again once that is over.
func TestUnitsAreSmallWhereManyWait(t *testing.T) {
	writers := &all.writers
	defer writers.Add(writers.Swap(wholeMost) - wholeMost)
	for _, row := range []struct {
		more int32
		want int
	}{{0, unitSize}, {1, smallSize}, {-1, unitSize}} {
		writers.Add(row.more)
		var b buffer
		if p := b.lease(); len(p) != row.want || cap(p) <= row.want {
			t.Errorf("with %d writers there are %d bytes, with room for %d", writers.Load(), len(p), cap(p))
		}
		b.giveBack()
		b.giveBack()
	}
}
