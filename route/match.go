package route

import (
	"net/netip"
	"slices"

	"sallyport/flow"
	"sallyport/name"
	"sallyport/rule"
)

// Match selects flows; all that it names must hold. The zero value takes all.
type Match struct {
	SNI    []name.Pattern // one of them takes the hello's server name
	NoSNI  bool           // or the hello has none
	ALPN   []string       // the client offers one of them
	TLS    *bool          // whether the flow began with a ClientHello
	Client []netip.Prefix // the client's address is in one of them
	If     *rule.Choice   // is true; nil does not ask
}

func (m *Match) asksSNI() bool { return m.NoSNI || len(m.SNI) > 0 }

func (m *Match) takesSNI(f *flow.Flow) bool {
	switch {
	case !m.asksSNI():
		return true
	case f.Hello == nil:
		return false
	case f.Hello.SNI == "":
		return m.NoSNI
	}
	for i := range m.SNI {
		if m.SNI[i].Match(f.Hello.SNI) {
			return true
		}
	}
	return false
}

func (m *Match) takesALPN(f *flow.Flow) bool {
	if len(m.ALPN) == 0 {
		return true
	}
	if f.Hello == nil {
		return false
	}
	for _, p := range f.Hello.ALPN {
		if slices.Contains(m.ALPN, p) {
			return true
		}
	}
	return false
}

func (m *Match) takesTLS(f *flow.Flow) bool { return m.TLS == nil || *m.TLS == (f.Hello != nil) }

func (m *Match) takesClient(a netip.Addr) bool {
	return len(m.Client) == 0 || a.IsValid() && contains(m.Client, a)
}

// asksHello says that m takes only flows with a ClientHello.
func (m *Match) asksHello() bool {
	return m.asksSNI() || len(m.ALPN) > 0 || m.TLS != nil && *m.TLS
}

// Empty says that m takes no flow at all: it asks for something of a ClientHello
// and for none.
func (m Match) Empty() bool { return m.TLS != nil && !*m.TLS && m.asksHello() }

// Covers says that m takes every flow that n takes, so that a route with n after
// one with m is never reached. It errs towards no: it holds each pattern and each
// prefix of n against single ones of m, not against what several of m make up, and
// takes two expressions for the same only where their texts are.
func (m Match) Covers(n Match) bool {
	if n.Empty() {
		return true
	}
	switch {
	case m.TLS == nil:
	case *m.TLS && !n.asksHello():
		return false
	case !*m.TLS && (n.TLS == nil || *n.TLS):
		return false
	}
	return m.coversSNI(n) && m.coversALPN(n) && m.coversClient(n) && m.coversIf(n)
}

func (m Match) coversSNI(n Match) bool {
	if !m.asksSNI() {
		return true
	}
	if !n.asksSNI() || n.NoSNI && !m.NoSNI {
		return false
	}
	for _, q := range n.SNI {
		if !slices.ContainsFunc(m.SNI, func(p name.Pattern) bool { return p.Covers(q) }) {
			return false
		}
	}
	return true
}

func (m Match) coversALPN(n Match) bool {
	if len(m.ALPN) == 0 {
		return true
	}
	for _, p := range n.ALPN {
		if !slices.Contains(m.ALPN, p) {
			return false
		}
	}
	return len(n.ALPN) > 0
}

func (m Match) coversClient(n Match) bool {
	if len(m.Client) == 0 {
		return true
	}
	wide := unmapped(m.Client)
	for _, q := range unmapped(n.Client) {
		if !slices.ContainsFunc(wide, func(p netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }) {
			return false
		}
	}
	return len(n.Client) > 0
}

func (m Match) coversIf(n Match) bool {
	return m.If == nil || n.If != nil && m.If.String() == n.If.String()
}
