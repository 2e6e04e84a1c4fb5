package proxy

import (
	"context"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/flow"
)

// stuck is an end whose peer reads nothing.
type stuck struct {
	*end
	over chan struct{}
	once sync.Once
}

func (s *stuck) stop() { s.once.Do(func() { close(s.over) }) }

func (s *stuck) Write([]byte) (int, error) {
	<-s.over
	return 0, os.ErrDeadlineExceeded
}

func (s *stuck) SetWriteDeadline(t time.Time) error {
	time.AfterFunc(time.Until(t), s.stop)
	return nil
}

func (s *stuck) Abort() error {
	s.stop()
	return s.end.Abort()
}

// A client that reads nothing cannot keep a flow alive whose server is gone.
func TestStuckClientOfABrokenServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, client := duplex()
		conn := &stuck{end: near, over: make(chan struct{})}
		server, far := duplex()
		f := &flow.Flow{Start: time.Now(), Decision: &flow.Decision{}}
		far.Write([]byte("more than the client takes"))
		ended := make(chan error, 1)
		go func() {
			ended <- Relay{}.Relay(context.Background(), f, conn, func(context.Context) (flow.Conn, error) { return server, nil })
		}()
		synctest.Wait()
		far.Abort()
		client.Write([]byte("the server does not take this any more"))
		began := time.Now()
		err := <-ended
		if e := flow.AsError(err, flow.Internal); e == nil || e.Reason != flow.ServerReset {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took > 2*settleTotal {
			t.Errorf("it took %v", took)
		}
	})
}
