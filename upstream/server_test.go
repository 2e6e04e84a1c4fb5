package upstream

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

var errTest = errors.New("refused")

func TestRiseAndFall(t *testing.T) {
	var log bytes.Buffer
	set := NewSet(slog.New(slog.NewTextHandler(&log, nil)), System{}, nil)
	s := set.Server(Spec{Addr: "tcp://a:1", ID: "a", Rise: 2, Fall: 3, Check: &Check{}})
	now := time.Now()
	for _, step := range []struct {
		pass, down bool
	}{
		{false, false}, {false, false}, {true, false}, // a pass in between begins anew
		{false, false}, {false, false}, {false, true},
		{true, true}, {false, true}, {true, true}, {true, false},
	} {
		if step.pass {
			s.pass(now)
		} else {
			s.fail(now, errTest)
		}
		if s.isDown() != step.down {
			t.Fatalf("%+v: down is %t", step, s.isDown())
		}
		// What was wrong is shown until it is over, and no longer.
		if st, over := s.status(), step.pass && !step.down; (st.Err == "") != over || st.ErrAt.IsZero() != over {
			t.Errorf("%+v: status has %q of %v", step, st.Err, st.ErrAt)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "server down") || !strings.Contains(log.String(), "server up") {
		t.Errorf("the log has more or less than the two changes:\n%s", &log)
	}
}

// What is logged of a server names the routes that have it: those of the program before
// until the one that runs now does.
func TestServersAreLoggedWithTheirRoutes(t *testing.T) {
	var log bytes.Buffer
	spec := func(id string) Spec { return Spec{Addr: "tcp://a:1", ID: id, Rise: 1, Fall: 1, Check: &Check{}} }
	build := func(before *Set, routes ...string) *Set {
		set := NewSet(slog.New(slog.NewTextHandler(&log, nil)), System{}, before)
		for _, route := range routes {
			p := &Pool{Route: route}
			p.Add(set.Server(spec("one way")), Member{})
			set.Add(p)
		}
		p := &Pool{Route: "other"}
		p.Add(set.Server(spec("another way")), Member{})
		set.Add(p)
		return set
	}
	said := func(what, want string) {
		t.Helper()
		if !strings.Contains(log.String(), what) || !strings.Contains(log.String(), want) {
			t.Errorf("want %s with %s: %s", what, want, &log)
		}
		log.Reset()
	}
	old := build(nil, "x", "y")
	old.Work()
	one, now := old.servers[0], time.Now()
	one.fail(now, errTest)
	said("server down", `routes="[x y]"`)
	old.servers[1].fail(now, errTest)
	said("server down", `routes=[other]`)

	work := build(old, "z").Work()
	one.pass(now)
	said("server up", `routes="[x y]"`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	work[0](ctx)
	one.drain(true)
	said("taken out", `routes=[z]`)
	one.drain(false)
	said("put back", `routes=[z]`)
	many := build(nil, strings.Split("a b c d e f g h i j", " ")...)
	many.Work()
	many.servers[0].fail(now, errTest)
	said("server down", `routes="[a b c d e f g h and 2 more]"`)
}

func TestASetFollowsTheOneBefore(t *testing.T) {
	spec := Spec{Addr: "tcp://a:1", ID: "a", Rise: 2, Fall: 1, Check: &Check{}}
	old := NewSet(quiet, System{}, nil)
	s := old.Server(spec)
	s.fail(time.Now(), errTest)
	s.join()
	if err := old.Drain("tcp://a:1"); err != nil {
		t.Fatal(err)
	}

	same := NewSet(quiet, System{}, old)
	if same.Server(spec) != s {
		t.Error("the same server is another one after a reload")
	}
	other := spec
	other.ID = "a, asked otherwise"
	followed := NewSet(quiet, System{}, same).Server(other)
	if c := followed.condition(); c.up || !c.drained || c.flows != 0 {
		t.Errorf("what was known of the address is lost: %+v", c)
	}
	if err := same.Undrain("tcp://b:1"); err == nil || !strings.Contains(err.Error(), "tcp://a:1") {
		t.Errorf("an unknown address: %v", err)
	}
	if err := same.Undrain("tcp://a:1"); err != nil || s.condition().drained {
		t.Errorf("%v", err)
	}
}
