package build

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"sallyport/credential"
	"sallyport/verify"
)

// waiting looks, while a program runs, whether DNS has the records of what is held.
type waiting struct {
	*holds
	all      []*hold
	certs    []*candidate       // of all, once it runs
	resolver func() verify.TLSA // one that has nothing in memory
	now      func() time.Time
	log      *slog.Logger
}

// candidate is one certificate at one listener, for all routes there.
type candidate struct {
	*leaf
	own       *credential.Credential
	listener  string
	questions []*question // one a name
}

// question is what there is in DNS for a name.
type question struct {
	*records
	publish string // the record that would do
	at      verify.Presented
}

// startHolds has the records looked up while the program runs.
func (b *builder) startHolds() {
	w := &waiting{holds: b.lasting.holds, all: b.held, now: b.now, log: b.o.Log}
	r := b.tlsa // there is one if anything is held
	w.resolver = func() verify.TLSA { return r.Anew() }
	b.program.holds = w
	b.program.Work = append(b.program.Work, w.run)
}

// glance bounds how long nothing is looked at: the clock that certificates are judged
// by is not that of timers.
const glance = time.Minute

// run takes the place of the run before it.
func (w *waiting) run(ctx context.Context) {
	w.begin(ctx)
	for len(w.all) > 0 {
		select {
		case <-time.After(w.look(ctx)):
		case <-ctx.Done():
			return
		}
	}
}

func (w *waiting) begin(ctx context.Context) {
	w.running.Lock() // a look of the run before is over
	defer w.running.Unlock()
	if ctx.Err() != nil {
		return // the run after it may have begun
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = map[address][]*hold{}
	known := map[*leaf]*candidate{}
	waits := map[*leaf]bool{}
	for _, h := range w.all {
		w.at[h.listener.address()] = append(w.at[h.listener.address()], h)
		for i := range h.certs {
			c := &h.certs[i]
			waits[c.leaf] = waits[c.leaf] || c.waits()
			if known[c.leaf] == nil {
				known[c.leaf] = &candidate{leaf: c.leaf, own: c.Credential, listener: h.listener.Name}
				w.certs = append(w.certs, known[c.leaf])
			}
			known[c.leaf].asks(h, c.hosts)
		}
	}
	for _, c := range w.certs {
		c.held = waits[c.leaf]
	}
	w.compose() // with what was let go since it was built
}

// asks adds what is to be asked for hosts.
func (c *candidate) asks(h *hold, hosts []string) {
	port, transport := h.port()
	if port == 0 {
		return // there can be no records
	}
	for _, host := range hosts {
		if slices.ContainsFunc(c.questions, func(q *question) bool { return q.at.Name == host }) {
			continue
		}
		if c.records[host] == nil {
			c.records[host] = new(records)
		}
		c.questions = append(c.questions, &question{
			records: c.records[host], publish: recordOf(c.own.Chain[0], host, port, transport),
			at: verify.Presented{Role: verify.Server, Name: host, Port: port, Transport: transport, Chain: c.own.Chain},
		})
	}
}

// port is the one that clients find the listener at.
func (h *hold) port() (uint16, string) {
	switch a := h.listener.Acceptor.Addr().(type) {
	case *net.TCPAddr:
		return a.AddrPort().Port(), "tcp"
	case *net.UDPAddr:
		return a.AddrPort().Port(), "udp"
	}
	return 0, ""
}

func (w *waiting) compose() {
	for _, h := range w.all {
		h.compose()
	}
}

// look asks what is due, lets go what can be, and says when to look again.
func (w *waiting) look(ctx context.Context) time.Duration {
	w.running.Lock()
	defer w.running.Unlock()
	if ctx.Err() != nil {
		return 0
	}
	now := w.now()
	w.mu.Lock()
	for _, c := range w.certs {
		w.expire(c, now)
	}
	w.compose()
	due := w.due(now)
	w.mu.Unlock()
	w.ask(ctx, due, now)
	if ctx.Err() != nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next(w.now())
}

// answered takes one answer as it comes: a name that is slow holds up no other one.
func (w *waiting) answered(q *question, f found) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	q.saw(f, now)
	for _, c := range w.certs {
		w.settle(c, now)
	}
	w.compose()
}

// asked says whether q is asked still: about what is held again and again, about what
// is shown until there is an answer.
func (c *candidate) asked(q *question) bool { return c.held || !q.known || q.err != nil }

func (w *waiting) due(now time.Time) []*question {
	var list []*question
	for _, c := range w.certs {
		for _, q := range c.questions {
			if c.asked(q) && !now.Before(q.due) {
				list = append(list, q)
			}
		}
	}
	return list
}

// next is how long nothing is due.
func (w *waiting) next(now time.Time) time.Duration {
	left := glance
	for _, c := range w.certs {
		if c.held {
			left = min(left, c.until.Sub(now))
		}
		for _, q := range c.questions {
			if c.asked(q) {
				left = min(left, q.due.Sub(now))
			}
		}
	}
	return max(left, 0)
}

// asksAtOnce bounds how much a resolver is asked at one time.
const asksAtOnce = 8

func (w *waiting) ask(ctx context.Context, list []*question, now time.Time) {
	if len(list) == 0 {
		return
	}
	at := w.resolver()
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, asksAtOnce)
	for _, q := range list {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			defer func() { <-places }()
			p := q.at
			p.Now = now
			if f := find(ctx, at, &p); ctx.Err() == nil {
				w.answered(q, f)
			}
		})
	}
}

// expire shows what has waited for as long as what was before it lets it.
func (w *waiting) expire(c *candidate, now time.Time) {
	if !c.held || now.Before(c.until) {
		return
	}
	c.held = false
	for _, q := range c.questions {
		if !q.ready(now) {
			q.say(phaseMissing, now)
			w.log.Error("A NEW CERTIFICATE IS SHOWN WHOSE RECORD DNS IS NOT KNOWN TO HAVE, since the one before it expires: clients with DANE may refuse it",
				c.about(q, "publish", q.publish)...)
		}
	}
}

// settle shows c if it need not wait any more, or says what is wrong with its records.
func (w *waiting) settle(c *candidate, now time.Time) {
	switch {
	case !c.held:
		for _, q := range c.questions {
			w.judge(c, q, now)
		}
	case !slices.ContainsFunc(c.questions, func(q *question) bool { return !q.ready(now) }):
		c.held = false
		w.log.Info("a new certificate is shown: nobody goes by records in DNS that it does not pass by", "listener", c.listener, "certificate", label(c.own))
	default:
		for _, q := range c.questions {
			if !q.ready(now) {
				w.explain(c, q, now)
			}
		}
	}
}

// judge says what clients may not take of what is shown, once.
func (w *waiting) judge(c *candidate, q *question, now time.Time) {
	switch p := q.phase(); {
	case p == q.said || p == phaseNone || p == phaseWaiting:
	case p == phaseMissing:
		q.say(p, now)
		w.log.Error("A CERTIFICATE IS SHOWN THAT DOES NOT PASS BY ITS RECORDS IN DNS: clients with DANE will refuse it", c.about(q, "publish", q.publish)...)
	default:
		q.say(p, now)
		w.log.Warn("whether DNS has the record of a certificate that is shown is not known", c.about(q, "publish", q.publish, "err", q.err.Error())...)
	}
}

// explain says what c waits for.
func (w *waiting) explain(c *candidate, q *question, now time.Time) {
	p := q.phase()
	if p == phaseNone || !q.say(p, now) {
		return
	}
	waits := []any{"publish", q.publish, "since", stamp(c.since), "until", stamp(c.until)}
	switch p {
	case phaseMissing:
		w.log.Warn("a new certificate is held back: DNS does not have its record", c.about(q, waits...)...)
	case phaseWaiting:
		w.log.Info("a new certificate is held back: DNS has its record, and others may still remember the ones from before", c.about(q, append(waits, "safe_from", stamp(q.safe))...)...)
	default:
		w.log.Warn("a new certificate is held back: whether DNS has its record is not known", c.about(q, append(waits, "err", q.err.Error())...)...)
	}
}

func (c *candidate) about(q *question, more ...any) []any {
	return append([]any{"listener", c.listener, "name", q.at.Name, "certificate", label(c.own)}, more...)
}

// Held is a certificate that waits for DNS.
type Held struct {
	Listener string
	Name     string // that it waits for; of several the first
	Since    time.Time
	Until    time.Time
	Publish  string // the record that the name needs
}

// Held are those that wait now.
func (p *Program) Held() []Held {
	w := p.holds
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []Held
	for _, c := range w.certs {
		if !c.held {
			continue
		}
		h := Held{Listener: c.listener, Since: c.since, Until: c.until}
		for _, q := range c.questions {
			if !q.ready(w.now()) {
				h.Name, h.Publish = q.at.Name, q.publish
				break
			}
		}
		list = append(list, h)
	}
	return list
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
