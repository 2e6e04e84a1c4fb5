package proxy

import "testing"

// Directions that wait for a reader who has stopped keep no more than wholeMost whole
// buffers; whoever comes later has a small one, and a whole one again once one is back.
func TestWholeBuffersAreFew(t *testing.T) {
	before := buffers.out.Load()
	waiting := make([]buffer, wholeMost)
	for i := range waiting {
		if p := waiting[i].lease(); before == 0 && len(p) != unitSize {
			t.Fatalf("direction %d has %d bytes", i, len(p))
		}
	}
	var late buffer
	if p := late.lease(); len(p) != smallSize || cap(p) <= smallSize {
		t.Errorf("one more has %d bytes, with room for %d", len(p), cap(p))
	}
	late.giveBack()
	for i := range waiting {
		waiting[i].giveBack()
	}
	if p := late.lease(); len(p) != unitSize {
		t.Errorf("with all of them back, %d bytes", len(p))
	}
	late.giveBack()
	late.giveBack()
	if n := buffers.out.Load(); n != before {
		t.Errorf("%d are out, %d were", n, before)
	}
}
