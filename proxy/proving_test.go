package proxy

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// stranger is a client that has proved nothing until Established.
type stranger struct {
	*packets
	proved chan struct{}
}

func newStranger() (*stranger, *packets) {
	near, far := association()
	return &stranger{near, make(chan struct{})}, far
}

func (s *stranger) Established() { close(s.proved) }
func (s *stranger) Unproven() bool {
	select {
	case <-s.proved:
		return false
	default:
		return true
	}
}

// passing has the world's engine pass on what a stranger sends, and gives that
// one's end, and the server's.
func (w *world) passing(t *testing.T, dialled dialsPackets) (user, service *packets) {
	t.Helper()
	near, user := newStranger()
	user.Write(hello(t, 0, nil))
	w.accepted <- accepted{&flow.Flow{Start: time.Now(), Origin: flow.Origin{Transport: flow.Datagram}}, near}
	service = <-dialled.far
	hears(t, service, len(hello(t, 0, nil)))
	return user, service
}

// showCookie has the user show the server's cookie.
func showCookie(t *testing.T, user, service *packets) {
	t.Helper()
	service.Write(wire.AppendHelloVerifyRequest(nil, 0, 0, []byte("the server's")))
	verify := make([]byte, unitSize)
	if n, err := user.Read(verify); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	user.Write(hello(t, 1, []byte("the server's")))
}

// Who has proved nothing takes no slot of those who have, and gets one with the
// server's cookie, as soon as one is free.
func TestStrangersTakeNoSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &flow.Decision{Action: flow.Splice, Timeouts: flow.Timeouts{Handshake: time.Minute}}
		w := newWorld(d)
		<-w.accepted
		w.engine.Flows = 1
		w.records = make(chan record, 10)
		w.listener.Store(&Listener{Name: "l", Decider: decided{d}, Peek: PeekMust})
		dialled := dialsPackets{make(chan *packets, 3)}
		d.Upstream = dialled
		served := make(chan struct{})
		go func() { w.engine.Serve(context.Background(), w, &w.listener); close(served) }()

		var users, services [3]*packets
		for i := range users {
			users[i], services[i] = w.passing(t, dialled)
		}
		synctest.Wait()
		if n := len(w.engine.slots); n != 0 {
			t.Errorf("strangers have %d slots", n)
		}
		cookie := len(hello(t, 1, []byte("the server's")))
		showCookie(t, users[0], services[0])
		hears(t, services[0], cookie)
		showCookie(t, users[1], services[1])
		synctest.Wait()
		if n, heard := len(w.engine.slots), len(services[1].in.list); n != 1 || heard > 0 {
			t.Errorf("%d slots of 1 are taken, and the server of another was told", n)
		}
		users[0].Close()
		if r := <-w.records; r.e != nil {
			t.Errorf("ended with %v", r.e)
		}
		synctest.Wait()
		users[1].Write(hello(t, 1, []byte("the server's"))) // said again
		hears(t, services[1], cookie)
		for _, u := range users {
			u.Close()
		}
		w.Close()
		<-served
		w.engine.Drain(context.Background())
		if slots, strangers := len(w.engine.slots), w.engine.unproven.Load(); slots != 0 || strangers != 0 {
			t.Errorf("%d slots and %d strangers in the end", slots, strangers)
		}
	})
}

// What a stranger sends that is no hello is thrown away, and no buffer is held for
// what may come after it.
func TestStrangersHoldNoBuffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, user := newStranger()
		p := prove(&packetReplay{&replay{Conn: near, units: flow.Units(near)}, near}, time.Minute, func() bool { return true }, func(error) {})
		defer p.Close()
		leased, got := 0, make(chan []byte, 1)
		go func() {
			unit, err := p.ReadUnit(func() []byte { leased++; return make([]byte, unitSize) })
			if err != nil {
				t.Error(err)
			}
			got <- unit
		}()
		user.Write([]byte("rubbish"))
		user.Write(nil)
		synctest.Wait()
		if leased != 0 {
			t.Error("a buffer is held after rubbish")
		}
		first := hello(t, 0, nil)
		user.Write(first)
		if unit := <-got; !bytes.Equal(unit, first) || leased != 1 {
			t.Errorf("%q in %d buffers", unit, leased)
		}
	})
}
