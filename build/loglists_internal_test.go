package build

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/ct"
	"sallyport/internal/ca"
)

// shelf answers for a publisher of lists, without a network.
type shelf struct {
	mu        sync.Mutex // who fetches does so on another goroutine
	list, sig []byte
	err       error
	asked     []time.Time // for the list
}

func (s *shelf) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body := s.sig
	if strings.HasSuffix(r.URL.Path, ".json") {
		s.asked = append(s.asked, time.Now())
		body = s.list
	}
	if s.err != nil {
		return nil, s.err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body)), Header: http.Header{}, Request: r}, nil
}

// desk is a shelf with who fetches from it.
type desk struct {
	*shelf
	*logLists
	key crypto.Signer
	log *ca.Log
	out bytes.Buffer
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{shelf: &shelf{}, key: key, log: ca.TestLog(t, "Alder", "A")}
	d.logLists = &logLists{
		logs: new(ct.Logs), keys: []crypto.PublicKey{key.Public()}, all: []*logList{{from: "https://ct.test/v3/log_list.json", url: true}},
		memory: newListMemory(t.TempDir()), client: &http.Client{Transport: d.shelf}, now: time.Now, log: slog.New(slog.NewTextHandler(&d.out, nil)),
	}
	return d
}

func (d *desk) publish(t *testing.T, at time.Time) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = ca.LogList(at, d.log)
	sum := sha256.Sum256(d.list)
	var err error
	if d.sig, err = d.key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
}

// A list is renewed each day, give or take; where that fails, it is tried again
// soon and then seldom, and what there is stays.
func TestListsAreRenewed(t *testing.T) {
	d := newDesk(t)
	synctest.Test(t, func(t *testing.T) {
		first := time.Now()
		d.publish(t, first)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { d.run(ctx); close(done) }()
		synctest.Wait()
		if n := len(d.asked); n != 1 || d.logs.Len() != 1 {
			t.Fatalf("asked %d times, %d logs", n, d.logs.Len())
		}
		pass(21 * time.Hour)
		d.publish(t, time.Now())
		pass(6 * time.Hour)
		if n := len(d.asked); n != 2 || !d.logs.Oldest().Equal(d.asked[0].Add(21*time.Hour)) {
			t.Fatalf("asked %d times, the list is of %s", n, d.logs.Oldest())
		}
		d.breaks(errors.New("no route to host"))
		pass(71 * 24 * time.Hour)
		n := len(d.asked)
		if gap := d.asked[3].Sub(d.asked[2]); gap > 2*time.Minute {
			t.Errorf("tried again after %s", gap)
		}
		if gap := d.asked[n-1].Sub(d.asked[n-2]); gap < 54*time.Minute || gap > 66*time.Minute {
			t.Errorf("at last each %s", gap)
		}
		if !strings.Contains(d.out.String(), "list of CT logs too old") {
			t.Error("nobody said that it is too old")
		}
		d.breaks(nil)
		d.publish(t, time.Now())
		pass(2 * time.Hour)
		if age := time.Since(d.logs.Oldest()); age > 3*time.Hour {
			t.Errorf("the list is %s old", age)
		}
		cancel()
		<-done
	})
}

// pass lets so much time go by, and waits for what it brings.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *shelf) breaks(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// Nobody gets us back to a list of old, however well signed.
func TestListsAreNotReplacedByOlder(t *testing.T) {
	d := newDesk(t)
	now := time.Now()
	l := d.all[0]
	d.publish(t, now)
	if err := d.renew(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	good := d.list
	for says, spoil := range map[string]func(){
		"the list there is of":         func() { d.publish(t, now.Add(-time.Hour)) },
		"by none of the 1 keys":        func() { d.publish(t, now); d.list = append(bytes.Clone(d.list), ' ') },
		"no list of logs in JSON":      func() { d.resign(t, []byte("<html>")) },
		"more than 4194304 bytes":      func() { d.list = make([]byte, ct.MaxList+1) },
		"has more than 16384 bytes":    func() { d.list, d.sig = good, make([]byte, ct.MaxSignature+1) },
		"a list without any log":       func() { d.resign(t, []byte(`{"log_list_timestamp":"2036-01-01T00:00:00Z"}`)) },
		"connection refused by nobody": func() { d.err = errors.New("connection refused by nobody") },
	} {
		d.err = nil
		spoil()
		if err := d.renew(t.Context(), l); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
		if !d.logs.Oldest().Equal(now.Round(0)) {
			t.Errorf("%s: the list in force is of %s", says, d.logs.Oldest())
		}
	}
}

func (d *desk) resign(t *testing.T, list []byte) {
	d.list = list
	sum := sha256.Sum256(list)
	var err error
	if d.sig, err = d.key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
}

// What is kept is private, whole, and read by the next process.
func TestListsAreKept(t *testing.T) {
	d := newDesk(t)
	d.publish(t, time.Now())
	if err := d.renew(t.Context(), d.all[0]); err != nil {
		t.Fatal(err)
	}
	file := d.memory.file(d.all[0].from)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	next := newListMemory("")
	next.dir = d.memory.dir
	k, warning := next.get(d.all[0].from)
	if k == nil || warning != "" || !bytes.Equal(k.List, d.list) || !bytes.Equal(k.Signature, d.sig) {
		t.Fatal(k, warning)
	}
	d.memory = next
	l := &logList{from: d.all[0].from, url: true}
	if warning := d.recall(l); warning != "" || l.list == nil {
		t.Fatal(warning)
	}
	if due := time.Until(l.due); due < 21*time.Hour || due > 27*time.Hour {
		t.Errorf("due in %s", due)
	}
	d.keys = nil // another key
	if warning := d.recall(&logList{from: l.from, url: true}); !strings.Contains(warning, "is discarded") {
		t.Errorf("%q", warning)
	}
}
