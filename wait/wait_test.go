package wait_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/wait"
)

func TestAtMost(t *testing.T) {
	if v, err := wait.AtMost(time.Minute, func(givenUp func() bool) (int, error) {
		if givenUp() {
			t.Error("given up in the midst")
		}
		return 7, os.ErrExist
	}); v != 7 || err != os.ErrExist {
		t.Errorf("%d, %v", v, err)
	}
	late, given := make(chan struct{}), make(chan bool)
	if v, err := wait.AtMost(time.Millisecond, func(givenUp func() bool) (int, error) { <-late; given <- givenUp(); return 7, nil }); v != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v", v, err)
	}
	close(late)
	if !<-given {
		t.Error("it does not know that it was given up")
	}
	if !strings.Contains(wait.Hangs, "within 30 s") || wait.Time != 30*time.Second {
		t.Errorf("%q says another time than %v", wait.Hangs, wait.Time)
	}
}
