package upstream

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/flow"
)

// attempts are what a flow has tried in vain.
type attempts struct {
	members []*member
	errs    []error
}

// has goes by the server: SRV records that change make members anew.
func (a *attempts) has(m *member) bool {
	return slices.ContainsFunc(a.members, func(o *member) bool { return o.server == m.server })
}

func (a *attempts) add(m *member, err error) {
	a.members, a.errs = append(a.members, m), append(a.errs, err)
}

// Again implements [flow.Retrier].
func (c *conn) Again(ctx context.Context, f *flow.Flow, failed error) (flow.Conn, error) {
	c.Close()
	// A flow that was ended has cut the connection itself.
	if ctx.Err() != nil || !serverFailed(failed) {
		return nil, failed
	}
	p, tried := c.pool, c.tried
	if p.blames(f, failed) && !c.blamed.Swap(true) {
		c.member.server.fail(time.Now(), failed)
	}
	tried.add(c.member, fmt.Errorf("%s: %w", c.member.server.spec.Addr, failed))
	left := p.left(tried)
	if left == 0 || len(tried.members) > p.Retry {
		return nil, p.gaveUp(tried, left)
	}
	return p.dial(ctx, f, tried)
}

// blames says whether a handshake that failed so counts against its server. What a
// stranger has a say in does not: a few of his would take the server from everybody.
func (p *Pool) blames(f *flow.Flow, failed error) bool {
	const noApplicationProtocol = 120 // the alert of RFC 7301, section 3.2
	e := flow.AsError(failed, flow.Internal)
	switch {
	case e.Reason == flow.ALPNMismatch, e.Alerts.Received == noApplicationProtocol:
		return false
	case p.Told && e.Refusal == nil: // it may be the client that the server will not have
		return false
	case p.Mirrors && f.Hello != nil:
		return !slices.ContainsFunc(f.Hello.ALPN, func(s string) bool { return s != "h2" && s != "http/1.1" })
	}
	return true
}

// left is how many servers there are but for tried.
func (p *Pool) left(tried attempts) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, n := p.candidates(time.Now(), tried)
	return n
}

// gaveUp is the error of a flow that may not try any more, or has nothing left to.
func (p *Pool) gaveUp(a attempts, left int) error {
	last := a.errs[len(a.errs)-1]
	if len(a.errs) == 1 && (left > 0 || p.only()) {
		return last
	}
	if left == 0 {
		return p.nobody(a)
	}
	return a.asLast(fmt.Sprintf("%d servers tried: ", len(a.errs)), "")
}

// nobody is the error of a flow that no server is left for.
func (p *Pool) nobody(a attempts) error {
	if len(a.errs) > 0 && p.only() {
		return a.errs[0]
	}
	var rest []string
	const most = 4 // of a thousand servers that are down, the log has told
	members := p.all()
	for _, m := range members {
		if a.has(m) {
			continue
		}
		if len(rest) == most {
			rest = append(rest, "and so on")
			break
		}
		rest = append(rest, m.server.word())
	}
	why := strings.Join(rest, ", ")
	if len(a.errs) == 0 {
		if err := p.unknown(); err != nil && len(members) == 0 {
			return err
		}
		return flow.Fail(flow.NoServerUp, "no server is up: %s", why)
	}
	if why != "" {
		why = "; " + why
	}
	if last := flow.AsError(a.errs[len(a.errs)-1], flow.DialFailed); last.Stage == flow.StageOutbound {
		return a.asLast("no server is left: ", why)
	}
	return flow.Fail(flow.NoServerUp, "no server is up: %w%s", joined(a.errs), why)
}

// asLast is the last error, with the words of all.
func (a *attempts) asLast(before, after string) error {
	e := *flow.AsError(a.errs[len(a.errs)-1], flow.DialFailed)
	e.Err = fmt.Errorf("%s%w%s", before, joined(a.errs), after)
	return &e
}

// word says in one how a server is that was not tried.
func (s *Server) word() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := fmt.Sprintf("%s is %s", s.spec.Addr, s.state())
	if s.down && s.err != nil && !s.drained {
		text += " (" + s.err.Error() + ")"
	}
	return text
}

// joinedErrors stand on one line.
type joinedErrors []error

func joined(errs []error) error { return joinedErrors(errs) }

func (j joinedErrors) Error() string {
	texts := make([]string, len(j))
	for i, err := range j {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (j joinedErrors) Unwrap() []error { return j }
