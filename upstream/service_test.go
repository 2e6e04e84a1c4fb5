package upstream

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/flow"
)

// records is a resolver of one service, whose hosts are all at one address.
type records struct {
	mu   sync.Mutex
	list []Target
}

func (r *records) set(list ...Target) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = list
}

func (r *records) Targets(_ context.Context, service string) ([]Target, time.Duration, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.list) == 0 {
		return nil, 0, &net.DNSError{Err: "no such host", Name: service, IsNotFound: true}
	}
	return slices.Clone(r.list), 20 * time.Second, nil
}

func (*records) Addrs(context.Context, string) ([]netip.Addr, time.Duration, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, time.Hour, nil
}

// found has the targets of a service in a pool, without anybody there.
func found(set *Set, as Member) *Pool {
	p := &Pool{Retry: 1}
	p.AddService(set.Service("_x._tcp.test", "tcp://_x._tcp.test"), as, func(t Target, _ *Name) (Spec, flow.Dialer) {
		addr := fmt.Sprintf("%s:%d", t.Host, t.Port)
		return Spec{Addr: addr, ID: addr, Fall: 1}, dialer("127.0.0.1:1", false)
	})
	set.Add(p)
	return p
}

func targets(host string, n int, priority, weight uint16) (list []Target) {
	for i := range n {
		list = append(list, Target{priority, weight, uint16(i + 1), host})
	}
	return list
}

// The weights of a priority are shares; the next priority has what is left to it.
func TestServiceWeightsAndPriorities(t *testing.T) {
	r := &records{}
	r.set(Target{20, 1, 3, "late"}, Target{10, 3, 1, "heavy."}, Target{10, 1, 2, "light"}, Target{10, 0, 4, "seldom"}, Target{10, 1, 1, "heavy"})
	set := NewSet(quiet, r, nil)
	p := found(set, Member{Weight: 1})
	if !p.learn(t.Context()) {
		t.Fatal(p.unknown())
	}
	count := taken(t, p, 400, func(int) string { return "10.0.0.1" })
	if h, l, s := count["heavy:1"], count["light:2"], count["seldom:4"]; h < 296 || h > 303 || l < 96 || s > 2 || count["late:3"] > 0 {
		t.Errorf("%v", count)
	}
	for _, s := range set.servers {
		if s.spec.Addr != "late:3" {
			s.fail(time.Now(), net.ErrClosed)
		}
	}
	if count := taken(t, p, 4, func(int) string { return "10.0.0.1" }); count["late:3"] != 4 {
		t.Errorf("%v", count)
	}
}

// Beside a server of the file a service has its one share, also where its records say
// nothing of weights.
func TestServiceHasOneShare(t *testing.T) {
	for _, weight := range []uint16{0, 1} {
		r := &records{}
		r.set(targets("a", 3, 1, weight)...)
		set := NewSet(quiet, r, nil)
		p := found(set, Member{Weight: 1})
		if !p.learn(t.Context()) {
			t.Fatal(p.unknown())
		}
		p.Add(set.Server(Spec{Addr: "file:1", ID: "file:1", Fall: 1}), Member{Weight: 1, Dial: dialer("127.0.0.1:1", false)})
		if n := taken(t, p, 400, func(int) string { return "10.0.0.1" })["file:1"]; n < 198 || n > 202 {
			t.Errorf("weight %d: the server of the file has %d of 400", weight, n)
		}
	}
}

// Servers come and go with the records; how those are that stay is kept, and so are
// the last ones where a look-up fails, also over a reload.
func TestServiceFollowsItsRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &records{}
		r.set(Target{1, 1, 1, "a"}, Target{1, 1, 2, "b"})
		set := NewSet(quiet, r, nil)
		p := found(set, Member{Weight: 1})
		ctx, cancel := context.WithCancel(context.Background())
		var work sync.WaitGroup
		for _, f := range set.Work() {
			work.Go(func() { f(ctx) })
		}
		addrs := func(p *Pool) (list []string) {
			for _, m := range p.all() {
				list = append(list, m.server.spec.Addr)
			}
			slices.Sort(list)
			return list
		}
		want := func(p *Pool, list ...string) {
			t.Helper()
			synctest.Wait()
			if got := addrs(p); !slices.Equal(got, list) {
				t.Errorf("the servers are %v, want %v", got, list)
			}
		}
		want(p, "a:1", "b:2")
		b := p.all()[1].server
		b.drain(true)
		r.set(Target{1, 1, 2, "b"}, Target{2, 1, 3, "c"})
		time.Sleep(21 * time.Second)
		want(p, "b:2", "c:3")
		if p.all()[0].server != b || len(set.servers) != 2 || len(set.names) != 2 || len(set.asks) != 2 {
			t.Errorf("b is another one, or a is remembered: %v, %v", set.servers, set.names)
		}
		r.set() // which is no answer
		time.Sleep(time.Minute)
		want(p, "b:2", "c:3")
		next := NewSet(quiet, r, set)
		again := found(next, Member{Weight: 1})
		want(again, "b:2", "c:3")
		if !again.all()[0].server.condition().drained {
			t.Error("a reload has put b back")
		}
		r.set(Target{0, 0, 0, "."})
		time.Sleep(time.Minute)
		want(p)
		if _, err := p.Dial(t.Context(), &flow.Flow{}); reasonOf(err) != flow.NoServerUp {
			t.Error(err)
		}
		r.set(Target{1, 1, 1, "a"})
		time.Sleep(21 * time.Second)
		want(p, "a:1")
		cancel()
		work.Wait()
	})
}

// What a zone has is bounded, and what is no host is left out.
func TestServiceBounds(t *testing.T) {
	list, none, err := usable("_x._tcp.test", append(targets("a", 100, 2, 1), Target{1, 1, 9, "first"}, Target{0, 9, 0, "portless"},
		Target{0, 9, 1, "127.0.0.1"}, Target{0, 9, 1, "::1"}, Target{0, 9, 1, `a\000b`}, Target{0, 9, 1, "."}, Target{0, 9, 1, "a b"}))
	if err != nil || none || len(list) != mostTargets || list[0].Host != "first" {
		t.Errorf("%d, %t, %v: %v", len(list), none, err, list)
	}
	if _, none, err := usable("_x._tcp.test", []Target{{Host: "127.0.0.1", Port: 1}}); err == nil || none {
		t.Errorf("%t, %v", none, err)
	}
	if _, none, err := usable("_x._tcp.test", []Target{{Host: "."}}); err != nil || !none {
		t.Errorf("%t, %v", none, err)
	}
}

// A server that the process before had taken out is out once SRV records lead to it,
// after a reload too, until it is put back.
func TestServiceKeepsOut(t *testing.T) {
	r := &records{list: targets("b", 2, 1, 1)}
	set := NewSet(quiet, r, nil)
	found(set, Member{Weight: 1})
	if known := set.KeepOut([]string{"b:1", "c:1"}); len(known) > 0 {
		t.Errorf("it knows %v before any look-up", known)
	}
	set = NewSet(quiet, r, set)
	p := found(set, Member{Weight: 1})
	p.learn(t.Context())
	states := func() (list []State) {
		for _, s := range set.Pools()[0].Servers {
			list = append(list, s.State)
		}
		return list
	}
	if got := states(); !slices.Equal(got, []State{Drained, Up}) {
		t.Errorf("they are %v", got)
	}
	if got := set.Drained(); !slices.Equal(got, []string{"b:1", "c:1"}) {
		t.Errorf("drained are %v", got)
	}
	for _, addr := range []string{"b:1", "c:1"} {
		if err := set.Undrain(addr); err != nil {
			t.Error(err)
		}
	}
	if got := states(); len(set.Drained()) > 0 || !slices.Equal(got, []State{Up, Up}) {
		t.Errorf("put back, they are %v", got)
	}
}
