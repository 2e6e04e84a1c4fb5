package dane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Dial opens a connection to a resolver.
type Dial func(ctx context.Context, network, addr string) (net.Conn, error)

// Server is a recursive resolver.
type Server struct {
	Addr    string // host:port
	TLS     bool   // DNS over TLS (RFC 7858)
	TCP     bool   // never by datagrams
	Trusted bool   // its AD bit counts, although it is neither on loopback nor reached over TLS
}

func (s Server) String() string {
	if s.TLS {
		return "tls://" + s.Addr
	}
	return s.Addr
}

// trusted says whether the AD bit comes from where it was set (RFC 6840, section
// 5.8; RFC 7672, section 1.3): off this host, and in clear, anybody can set it.
func (s Server) trusted() bool {
	if s.Trusted || s.TLS {
		return true
	}
	a, err := netip.ParseAddrPort(s.Addr)
	return err == nil && a.Addr().Unmap().IsLoopback()
}

// Options of a [Resolver]. The zero values of the durations are the defaults.
type Options struct {
	Servers []Server // asked in this order
	Anchors *TrustAnchors
	Dial    Dial // "udp" and "tcp"
	DialTLS Dial // "tcp", and the handshake with a verified server; for servers with TLS
	Now     func() time.Time
	Timeout time.Duration // for one look-up, all servers together; 5 s
	Before  *Resolver     // of the same clock: what it has found is known where the servers and the anchors are the same
}

// Resolver looks names up and remembers what it found. It is safe for concurrent use.
type Resolver struct {
	o     Options
	cache *cache
	keys  *keyCache
	kept  kept
}

// NewResolver fails where nobody could ever say that an answer is secure.
func NewResolver(o Options) (*Resolver, error) {
	if len(o.Servers) == 0 {
		return nil, errors.New("no resolver is named")
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	for _, s := range o.Servers {
		if s.TLS && o.DialTLS == nil || !s.TLS && o.Dial == nil || o.Now == nil {
			return nil, fmt.Errorf("nothing to ask the resolver %s with", s)
		}
		// One that may be lied for would be asked when another one is silenced.
		if o.Anchors == nil && !s.trusted() {
			return nil, fmt.Errorf("the resolver %s is neither on this host nor reached over TLS, so that anybody on the way could call its answers secure; "+
				"run a validating one here (unbound), reach one over TLS, declare this one trusted where the way to it is safe, or name the root's trust anchor", s)
		}
	}
	b := o.Before
	o.Before = nil // or each would hold all that ever were
	r := (&Resolver{o: o}).Anew()
	if b != nil && slices.Equal(b.o.Servers, o.Servers) && b.o.Anchors.same(o.Anchors) {
		r.cache, r.keys = b.cache, b.keys
	}
	return r, nil
}

// Anew is r without what it remembers, for who has to know what DNS has now.
func (r *Resolver) Anew() *Resolver {
	return &Resolver{o: r.o, cache: &cache{now: r.o.Now}, keys: &keyCache{}}
}

// Answer is what a name has of one type.
type Answer struct {
	State   State         // Secure or Insecure
	Name    string        // where the records are: the name asked for, or what it is an alias of
	Aliases []string      // passed on the way, the name asked for first
	Exists  bool          // Name does, if only with other types
	TTL     time.Duration // for how long who has asked now may go by the records, or by there being none
	Whole   time.Duration // the TTL before anybody's cache took of it, where a signature says; else TTL
	Addrs   []netip.Addr
	TLSA    []Record
	SRV     []SRV
}

// SRV is a service record (RFC 2782).
type SRV struct {
	Priority, Weight, Port uint16
	Target                 string
}

// Type is a type of record that can be looked up.
type Type uint16

const (
	A     = Type(dns.TypeA)
	CNAME = Type(dns.TypeCNAME)
	AAAA  = Type(dns.TypeAAAA)
	SRVs  = Type(dns.TypeSRV)
	TLSA  = Type(dns.TypeTLSA)
)

// question is a name in lower case with its final dot, and a type.
type question struct {
	name  string
	qtype uint16
}

func (q question) show() string     { return fmt.Sprintf("%q", strings.TrimSuffix(q.name, ".")) }
func (q question) typeName() string { return dns.TypeToString[q.qtype] }

// Lookup gives what name has of type t. Its errors are an [*Error], or what ended ctx.
func (r *Resolver) Lookup(ctx context.Context, name string, t Type) (*Answer, error) {
	q := question{dns.CanonicalName(name), uint16(t)}
	if _, ok := dns.IsDomainName(q.name); !ok || len(q.name) > 254 {
		return nil, failure(q, errors.New("that is no name that DNS can have"))
	}
	return r.cache.get(ctx, q, func() (*Answer, time.Duration, error) { return r.find(ctx, q) })
}

// find asks, and says for how long the result may be kept.
func (r *Resolver) find(ctx context.Context, q question) (*Answer, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	reply, err := r.ask(ctx, q)
	if err != nil {
		return nil, keepFailure, failure(q, err)
	}
	a, sets, keep, err := read(reply.msg, q)
	if err != nil {
		return nil, keepFailure, failure(q, err)
	}
	switch {
	case r.o.Anchors != nil:
		var until time.Time
		if a.State, until, err = r.prove(ctx, a, q, sets, reply.msg); err != nil {
			return nil, keepFailure, failure(q, err)
		}
		keep = max(min(keep, until.Sub(r.o.Now())), 0)
	case reply.secure():
		a.State = Secure
	default:
		a.State = Insecure
	}
	return a, keep, nil
}

// ask puts the question to one server after the other, twice where none answers.
// Bogus is the last word: another server could only know less.
func (r *Resolver) ask(ctx context.Context, q question) (*reply, error) {
	var said []string
	for round := range 2 {
		said = said[:0]
		silent := false
		for _, s := range r.o.Servers {
			unchecked := r.o.Anchors != nil && !s.trusted() // checked here: even what is bogus has to come
			m, err := r.exchange(ctx, s, q, time.Second<<round, unchecked)
			if err == nil {
				return m, nil
			}
			refusal, ok := errors.AsType[*refusal](err)
			if ok && refusal.rcode == dns.RcodeServerFailure && (refusal.bogus || r.passesUnchecked(ctx, s, q)) {
				return nil, bogus{fmt.Errorf("resolver %s: %w", s, err)}
			}
			silent = silent || !ok
			said = append(said, fmt.Sprintf("resolver %s: %s", s, err))
			if ctx.Err() != nil {
				break
			}
		}
		if !silent || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.New(strings.Join(said, "; "))
}

// passesUnchecked says whether a server that failed answers once it need not check
// signatures (the CD bit): then they were what failed.
func (r *Resolver) passesUnchecked(ctx context.Context, s Server, q question) bool {
	_, err := r.exchange(ctx, s, q, time.Second, true)
	return err == nil
}
