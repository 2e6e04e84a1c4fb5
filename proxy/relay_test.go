package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
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

// bare is a socket as a [flow.Conn] that can be spliced.
type bare struct{ *net.TCPConn }

func (b bare) Transport() flow.Transport { return flow.Stream }
func (b bare) Bare() *net.TCPConn        { return b.TCPConn }

// Who has no file descriptor left for a pipe still moves the bytes of the flows
// that it has.
func TestRelayWithoutPipes(t *testing.T) {
	client, near := tcpPair(t)
	far, server := tcpPair(t)
	for len(pipes) > 0 {
		(<-pipes).close()
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := was
	none.Cur = 3 // below what is open already
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)
	f := &flow.Flow{Start: time.Now(), Decision: &flow.Decision{}}
	ended := make(chan error, 1)
	go func() {
		ended <- Relay{}.Relay(context.Background(), f, bare{near}, func(context.Context) (flow.Conn, error) { return bare{far}, nil })
	}()
	word := bytes.Repeat([]byte("word"), spliceFrom) // long enough that a pipe would have been wanted
	for _, way := range [][2]*net.TCPConn{{client, server}, {server, client}} {
		go func() {
			way[0].Write(word)
			way[0].CloseWrite()
		}()
		if got, err := io.ReadAll(struct{ io.Reader }{way[1]}); !bytes.Equal(got, word) || err != nil {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
