package upstream

import (
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/quick"
	"time"

	"sallyport/flow"
)

var quiet = slog.New(slog.DiscardHandler)

// testPool has a server of each weight, and the set that has them.
func testPool(balance Balance, weights ...int) (*Pool, *Set) {
	set := NewSet(quiet, System{}, nil)
	p := &Pool{Balance: balance, Retry: 1}
	for i, w := range weights {
		addr := fmt.Sprintf("tcp://10.0.0.%d:1", i)
		p.Add(set.Server(Spec{Addr: addr, ID: addr, Fall: 3, Rise: 2}), Member{Weight: w})
	}
	return p, set
}

func from(client string) *flow.Flow {
	return &flow.Flow{Origin: flow.Origin{Client: netip.AddrPortFrom(netip.MustParseAddr(client), 1)}}
}

// taken counts how often each server is taken by n flows, which last.
func taken(t *testing.T, p *Pool, n int, client func(i int) string) map[string]int {
	t.Helper()
	count := map[string]int{}
	for i := range n {
		m, _ := p.pick(from(client(i)), attempts{})
		if m == nil {
			t.Fatal("nobody was taken")
		}
		count[m.server.spec.Addr]++
	}
	return count
}

func one(int) string { return "192.0.2.1" }

// In each run of as many flows as all weights are together, every server has as
// many as its weight, whatever the weights are.
func TestRoundRobinIsExactAndSmooth(t *testing.T) {
	exact := func(a, b, c uint8) bool {
		weights := []int{int(a%20) + 1, int(b%20) + 1, int(c%20) + 1}
		p, _ := testPool(RoundRobin, weights...)
		for range 3 {
			count := taken(t, p, weights[0]+weights[1]+weights[2], one)
			for i, w := range weights {
				if count[fmt.Sprintf("tcp://10.0.0.%d:1", i)] != w {
					t.Logf("weights %v: %v", weights, count)
					return false
				}
			}
		}
		return true
	}
	if err := quick.Check(exact, nil); err != nil {
		t.Error(err)
	}
	p, _ := testPool(RoundRobin, 3, 1, 1)
	var order string
	for range 5 {
		m, _ := p.pick(from("192.0.2.1"), attempts{})
		order += m.server.spec.Addr[len("tcp://10.0.0."):][:1]
	}
	if order != "01020" && order != "01200" && order != "02010" {
		t.Errorf("weights 3, 1 and 1 are taken in the order %s: the heavy one all at once", order)
	}
}

func TestLeastGoesWhereFewestAre(t *testing.T) {
	p, set := testPool(Least, 1, 1, 2)
	count := taken(t, p, 400, one)
	if count["tcp://10.0.0.0:1"] != 100 || count["tcp://10.0.0.1:1"] != 100 || count["tcp://10.0.0.2:1"] != 200 {
		t.Errorf("%v", count)
	}
	for range 50 {
		set.servers[1].leave()
	}
	if count = taken(t, p, 50, one); count["tcp://10.0.0.1:1"] != 50 {
		t.Errorf("50 have left the second, and then: %v", count)
	}
}

func clients(i int) string { return fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&0xff, i&0xff) }

func TestHashKeepsClientsAndMovesFew(t *testing.T) {
	const n = 4000
	of := func(p *Pool) (where []string) {
		for i := range n {
			m, _ := p.pick(from(clients(i)), attempts{})
			where = append(where, m.server.spec.Addr)
		}
		return where
	}
	p, set := testPool(Hash, 1, 1, 1, 1, 2)
	before := of(p)
	count := map[string]int{}
	for _, w := range before {
		count[w]++
	}
	for i, want := range []int{n / 6, n / 6, n / 6, n / 6, n / 3} {
		if got := count[fmt.Sprintf("tcp://10.0.0.%d:1", i)]; got < want*85/100 || got > want*115/100 {
			t.Errorf("server %d has %d clients of about %d", i, got, want)
		}
	}
	again, _ := testPool(Hash, 1, 1, 1, 1, 2)
	for i, w := range of(again) {
		if w != before[i] {
			t.Fatalf("another proxy sends %s to %s, and this one to %s", clients(i), w, before[i])
		}
	}
	set.servers[2].drain(true)
	for i, w := range of(p) {
		if before[i] != "tcp://10.0.0.2:1" && w != before[i] {
			t.Fatalf("%s was at %s, which is still there, and is at %s", clients(i), before[i], w)
		}
		if w == "tcp://10.0.0.2:1" {
			t.Fatal("a drained server was taken")
		}
	}
}

func TestBackupsStandInAlone(t *testing.T) {
	set := NewSet(quiet, System{}, nil)
	p := &Pool{}
	for i, backup := range []bool{false, true, false} {
		addr := fmt.Sprintf("tcp://10.0.0.%d:1", i)
		p.Add(set.Server(Spec{Addr: addr, ID: addr, Fall: 1, Rise: 1, Check: &Check{}}), Member{Weight: 1, Backup: backup})
	}
	if count := taken(t, p, 10, one); count["tcp://10.0.0.1:1"] != 0 || len(count) != 2 {
		t.Errorf("%v", count)
	}
	now := time.Now()
	set.servers[0].fail(now, errTest)
	if count := taken(t, p, 10, one); count["tcp://10.0.0.2:1"] != 10 {
		t.Errorf("one is up beside the backup: %v", count)
	}
	set.servers[2].fail(now, errTest)
	if count := taken(t, p, 10, one); count["tcp://10.0.0.1:1"] != 10 {
		t.Errorf("only the backup is up: %v", count)
	}
	set.servers[1].fail(now, errTest)
	if m, _ := p.pick(from("192.0.2.1"), attempts{}); m != nil {
		t.Errorf("%s was taken, and the check says that it is down", m.server.spec.Addr)
	}
	set.servers[2].pass(now)
	if count := taken(t, p, 10, one); count["tcp://10.0.0.2:1"] != 10 {
		t.Errorf("the second is back: %v", count)
	}
}

func TestSlowStart(t *testing.T) {
	p, set := testPool(RoundRobin, 4)
	p.SlowStart = 10 * time.Second
	m, now := p.members[0], time.Now()
	if got := p.share(m, m.server.condition(), now); got != 4<<10 {
		t.Errorf("a server that never was down has %d of %d", got, 4<<10)
	}
	for range 3 {
		set.servers[0].fail(now, errTest)
	}
	set.servers[0].pass(now)
	last := int64(0)
	for _, at := range []time.Duration{0, time.Second, 5 * time.Second, 9 * time.Second, 10 * time.Second} {
		got := p.share(m, m.server.condition(), now.Add(at))
		if got < last || got <= 0 || at < p.SlowStart && got >= 4<<10 || at == 5*time.Second && got != 2<<10 {
			t.Errorf("after %s it has %d of %d", at, got, 4<<10)
		}
		last = got
	}
	if last != 4<<10 {
		t.Errorf("in the end it has %d", last)
	}
}
