package build

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"sallyport/config"
)

// clock gives the time that certificates are judged by, and expressions. Deadlines do not use it.
func clock(o config.ClockOffset) (func() time.Time, error) {
	if o.File == "" {
		return func() time.Time { return time.Now().Add(o.By) }, nil
	}
	c := &fileClock{file: o.File}
	if err := c.read(); err != nil {
		return nil, err
	}
	return c.now, nil
}

// fileClock reads its offset from a file, at most once a second.
type fileClock struct {
	file string

	mu   sync.Mutex
	by   time.Duration
	last time.Time
}

func (c *fileClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.last) >= time.Second {
		// A file that is gone or half written leaves the last good offset.
		_ = c.read()
	}
	return time.Now().Add(c.by)
}

func (c *fileClock) read() error {
	c.last = time.Now()
	b, err := os.ReadFile(c.file)
	if err != nil {
		return fmt.Errorf("reading unsafe.clock_offset: %w", err)
	}
	by, err := config.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("reading unsafe.clock_offset from %s: %w", c.file, err)
	}
	c.by = by
	return nil
}
