package dane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Service is what DNS says of the TLS service at a port of a host.
type Service struct {
	Base    string // the TLSA base domain: the name to ask the server for, without a final dot
	Name    string // where the records are: _443._tcp.Base
	State   State  // of Records, or of there being none: Secure or Insecure
	Records []Record
	TTL     time.Duration // what is left of it
	Whole   time.Duration // as it was published
}

// Line is a record as a zone file has it, at the name of a service.
func Line(host string, port uint16, transport string, r Record) string {
	return RecordName(host, port, transport) + ". IN TLSA " + r.String()
}

// RecordName is where the TLSA records of a service are (RFC 6698, section 3).
func RecordName(host string, port uint16, transport string) string {
	return fmt.Sprintf("_%d._%s.%s", port, transport, strings.TrimSuffix(host, "."))
}

// Service finds the TLSA records of a host's port; transport is tcp or udp. They are
// sought at the name that host is an alias of, then at host itself (RFC 7671, section
// 7). Records count only where all that led to them is secure; where the host's own
// zone is not signed, none are asked for, since such zones' servers may not know to
// answer (RFC 7672, section 2.2.2).
func (r *Resolver) Service(ctx context.Context, host string, port uint16, transport string) (*Service, error) {
	bases, addresses, err := r.bases(ctx, host)
	if err != nil {
		return nil, err
	}
	none := &Service{Base: strings.TrimSuffix(strings.ToLower(host), "."), State: addresses.State, TTL: addresses.TTL, Whole: addresses.Whole}
	none.Name = RecordName(none.Base, port, transport)
	for _, base := range bases {
		s := &Service{Base: strings.TrimSuffix(base, "."), Name: RecordName(base, port, transport)}
		a, err := r.Lookup(ctx, s.Name, TLSA)
		if err != nil {
			return nil, err
		}
		if s.State, s.Records, s.TTL, s.Whole = a.State, a.TLSA, a.TTL, a.Whole; a.State == Secure && len(a.TLSA) > 0 {
			return s, nil
		}
		none.TTL, none.Whole = min(none.TTL, a.TTL), max(none.Whole, a.Whole)
		none.State = a.State // the last word is that of host itself
	}
	return none, nil
}

// bases are the TLSA base domains to try, none where host's zone is not signed.
func (r *Resolver) bases(ctx context.Context, host string) ([]string, *Answer, error) {
	a, err := r.Lookup(ctx, host, A)
	if e, ok := errors.AsType[*Error](err); ok && e.State == Bogus {
		return nil, nil, err
	}
	if err != nil || a.State != Secure && len(a.Addrs) == 0 {
		// There are servers that fail for one of the two types; and a proof there
		// can only be for the type that is there.
		other, second := r.Lookup(ctx, host, AAAA)
		switch {
		case second == nil && (err != nil || other.State == Secure):
			a = other
		case err != nil:
			return nil, nil, err
		case second != nil:
			return nil, nil, second
		}
	}
	switch {
	case a.State == Secure && len(a.Aliases) == 0:
		return []string{a.Name}, a, nil
	case a.State == Secure:
		return []string{a.Name, a.Aliases[0]}, a, nil
	case len(a.Aliases) == 0:
		return nil, a, nil
	}
	// What host is an alias of may lie in a zone without signatures, when the
	// alias itself is signed.
	alias, err := r.Lookup(ctx, host, CNAME)
	if err != nil {
		return nil, nil, err
	}
	if alias.State == Secure {
		return []string{a.Aliases[0]}, a, nil
	}
	return nil, a, nil
}

func joinPort(host string) string { return net.JoinHostPort(host, "53") }
