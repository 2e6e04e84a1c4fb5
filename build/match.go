package build

import (
	"fmt"
	"time"

	"sallyport/config"
	"sallyport/flow"
	"sallyport/route"
	"sallyport/rule"
)

// match is what a route takes.
func match(c config.Match) (route.Match, error) {
	m := route.Match{ALPN: c.ALPN, TLS: c.TLS, Client: c.Client}
	for _, n := range c.SNI {
		if n.Text == "" {
			m.NoSNI = true
		} else {
			m.SNI = append(m.SNI, n.Pattern)
		}
	}
	if c.If == "" {
		return m, nil
	}
	var err error
	if m.If, err = rule.ParseChoice(c.If); err != nil {
		return m, fmt.Errorf("match.if: %w", err)
	}
	return m, nil
}

// decider is t, by the clock that expressions go by.
func (b *builder) decider(t *route.Table) flow.Decider {
	if b.file.Unsafe.ClockOffset == (config.ClockOffset{}) {
		return t
	}
	return shifted{t, b.now}
}

// shifted decides as of now, where a clock other than the flows' is asked for.
type shifted struct {
	*route.Table
	now func() time.Time
}

func (s shifted) Decide(f *flow.Flow) *flow.Decision {
	g := *f
	g.Start = s.now()
	return s.Table.Decide(&g)
}
