package dane

import (
	"testing"
	"time"
)

// What was found under a later clock, good or bad, is not kept until that time comes.
func TestClockSetBack(t *testing.T) {
	now := time.Unix(1e9, 0)
	c, asked := &cache{now: func() time.Time { return now }}, 0
	keys := &keyCache{}
	look := func(want int) {
		t.Helper()
		c.get(t.Context(), question{}, func() (*Answer, time.Duration, error) { asked++; return nil, time.Minute, nil })
		if asked != want {
			t.Errorf("asked %d times, want %d", asked, want)
		}
	}
	look(1)
	look(1)
	keys.keep("z.", nil, holds{now, now.Add(time.Minute)})
	if _, ok := keys.get("z.", now); !ok {
		t.Error("a key is not kept")
	}
	now = now.Add(-time.Hour)
	look(2)
	look(2)
	if _, ok := keys.get("z.", now); ok {
		t.Error("a key is kept that was found later")
	}
}
