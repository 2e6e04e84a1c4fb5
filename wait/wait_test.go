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
	if v, err := wait.AtMost(time.Minute, func() (int, error) { return 7, os.ErrExist }); v != 7 || err != os.ErrExist {
		t.Errorf("%d, %v", v, err)
	}
	late := make(chan struct{})
	defer close(late)
	if v, err := wait.AtMost(time.Millisecond, func() (int, error) { <-late; return 7, nil }); v != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v", v, err)
	}
	if !strings.Contains(wait.Hangs, "within 30 s") || wait.Time != 30*time.Second {
		t.Errorf("%q says another time than %v", wait.Hangs, wait.Time)
	}
}
