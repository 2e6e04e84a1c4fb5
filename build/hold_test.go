package build

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/credential"
	"sallyport/dane"
	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/verify"
)

// zone is DNS, as it is now.
type zone struct {
	mu  sync.Mutex
	has []dane.Record
	err error
}

func (z *zone) Service(ctx context.Context, host string, port uint16, transport string) (*dane.Service, error) {
	if host == "slow.test" {
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return &dane.Service{State: dane.Secure, Records: z.has, Whole: time.Hour, Name: dane.RecordName(host, port, transport)}, z.err
}

func (z *zone) set(t *testing.T, err error, leaves ...*ca.Leaf) {
	t.Helper()
	z.mu.Lock()
	defer z.mu.Unlock()
	z.has, z.err = nil, err
	for _, l := range leaves {
		r, err := dane.New(l.Cert, dane.DANEEE, dane.SPKI, dane.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		z.has = append(z.has, r)
	}
}

type bound struct{ flow.Acceptor }

func (bound) Addr() net.Addr { return &net.TCPAddr{Port: 443} }

// rehearsal is programs that follow each other, without the rest of them.
type rehearsal struct {
	*testing.T
	*zone
	root  *ca.Tester
	dir   string
	begun time.Time
	holds holds
	log   bytes.Buffer
	stop  func()
}

// load is a start, or a reload: another program with leaves in its files.
func (r *rehearsal) load(leaves ...*ca.Leaf) *hold {
	r.Helper()
	if r.stop != nil {
		r.stop()
	}
	var files []string
	for i, l := range leaves {
		cert, _, err := l.Write(r.dir, string(rune('a'+i)))
		if err != nil {
			r.Fatal(err)
		}
		files = append(files, cert)
	}
	store, _, err := credential.Load(credential.Options{Certs: files, Now: time.Now(), Env: os.Getenv})
	if err != nil {
		r.Fatal(err)
	}
	h := &hold{disk: store}
	for _, c := range store.Credentials() {
		names := credential.NamesOf(c.Chain[0])
		h.certs = append(h.certs, ownCert{Credential: c, names: names, hosts: hostsOf(names)})
	}
	h.listener = &Listener{Socket: &Socket{Acceptor: bound{}}}
	h.follow(r.holds.at[h.listener.address()], map[string]*leaf{}, time.Now(), func(stapling) credential.Staple { return nil })
	w := &waiting{holds: &r.holds, all: []*hold{h}, now: time.Now, log: slog.New(slog.NewTextHandler(&r.log, nil)),
		resolver: func() verify.TLSA { return r.zone }}
	ctx, cancel := context.WithCancel(r.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.run(ctx) }()
	r.stop = func() { cancel(); <-done }
	synctest.Wait()
	return h
}

func (r *rehearsal) shows(h *hold, leaf *ca.Leaf, when string) {
	r.Helper()
	synctest.Wait()
	c, err := h.Credential(r.Context(), &credential.Request{ServerName: "a.test"})
	if err != nil || !c.Chain[0].Equal(leaf.Cert) {
		r.Errorf("%s: another certificate is shown (%v)\n%s", when, err, r.log.String())
	}
}

func rehearse(t *testing.T, f func(r *rehearsal)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &rehearsal{T: t, zone: new(zone), root: ca.Test(t), dir: t.TempDir(), begun: time.Now()}
		f(r)
		r.stop()
	})
}

// days makes a leaf that has so many to live.
func (r *rehearsal) days(n int) *ca.Leaf {
	return r.root.Leaf([]string{"a.test"}, ca.Validity(time.Since(r.begun)+time.Duration(n)*24*time.Hour))
}

// One TTL after the record was first seen, over reloads.
func TestHoldForOneTTL(t *testing.T) {
	rehearse(t, func(r *rehearsal) {
		old, fresh := r.days(90), r.days(90)
		r.set(t, nil, old)
		r.shows(r.load(old), old, "at the start")
		h := r.load(fresh)
		r.shows(h, old, "before its record")
		time.Sleep(90 * time.Minute)
		r.set(t, nil, old, fresh)
		time.Sleep(30*time.Minute + time.Second) // it is seen at two hours
		r.shows(h, old, "with its record")
		h = r.load(fresh)
		time.Sleep(59 * time.Minute)
		r.shows(h, old, "after a reload")
		r.set(t, errors.New("SERVFAIL"))
		time.Sleep(2 * time.Minute)
		r.shows(h, old, "without an answer")
		r.set(t, nil, fresh)
		time.Sleep(time.Minute)
		r.shows(h, fresh, "after one TTL")
		h = r.load(fresh)
		r.shows(h, fresh, "after another reload")
		if n := strings.Count(r.log.String(), "level=ERROR"); n != 0 {
			r.Errorf("%d errors:\n%s", n, r.log.String())
		}
	})
}

// A newer one takes the place of what waits, and the old one that of both.
func TestHoldOfTwo(t *testing.T) {
	rehearse(t, func(r *rehearsal) {
		old, second, third := r.days(90), r.days(90), r.days(90)
		r.set(t, nil, old)
		r.load(old)
		r.load(second)
		r.set(t, nil, old, second)
		h := r.load(third)
		time.Sleep(10 * time.Hour)
		r.shows(h, old, "the record of what waited before")
		h = r.load(old)
		r.shows(h, old, "put back")
		h = r.load(old, third) // beside each other
		time.Sleep(time.Hour)
		r.shows(h, old, "beside the new one")
		r.set(t, nil, old, third)
		time.Sleep(3 * time.Hour)
		h = r.load(third)
		r.shows(h, third, "with its record")
	})
}

// A name that nobody answers for in time holds up no other one.
func TestHoldBesideASlowName(t *testing.T) {
	rehearse(t, func(r *rehearsal) {
		slow := func() *ca.Leaf { return r.root.Leaf([]string{"slow.test"}) }
		old, fresh := r.days(90), r.days(90)
		r.set(t, nil, old)
		r.load(slow(), old)
		r.set(t, nil)
		before := time.Now()
		h := r.load(slow(), fresh)
		r.shows(h, fresh, "beside a name that is being asked for")
		if took := time.Since(before); took > 0 {
			r.Errorf("it took %s", took)
		}
	})
}

// A day before the old one expires the new one is shown, and an old one past that
// holds nobody up.
func TestHoldUntil(t *testing.T) {
	rehearse(t, func(r *rehearsal) {
		old, fresh := r.days(30), r.days(90)
		r.set(t, nil, old)
		r.load(old)
		h := r.load(fresh)
		time.Sleep(29*24*time.Hour - time.Minute)
		r.shows(h, old, "before its last day")
		time.Sleep(2 * time.Minute)
		r.shows(h, fresh, "on its last day")
		if !strings.Contains(r.log.String(), "level=ERROR") {
			r.Errorf("no error was logged:\n%s", r.log.String())
		}
		time.Sleep(61*24*time.Hour - time.Hour)
		third := r.days(90)
		r.shows(r.load(third), third, "in place of one on its last day")
	})
}
