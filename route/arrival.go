package route

import (
	"errors"

	"sallyport/flow"
	"sallyport/rule"
	"sallyport/wire"
)

// holds asks the If of a route, if there is one.
func (s *search) holds(i int) (bool, error) {
	if s.t.routes[i].Match.If == nil {
		return true, nil
	}
	return s.ask(i)
}

func (s *search) ask(i int) (bool, error) {
	if s.suppose != nil {
		if holds, known := s.suppose(i); known {
			return holds, nil
		}
	}
	if s.arrival == nil {
		s.arrival = arrival(s.f)
	}
	return s.t.routes[i].Match.If.Holds(s.arrival)
}

// arrival is what an If can ask of f.
func arrival(f *flow.Flow) *rule.Arrival {
	a := &rule.Arrival{Time: f.Start.UTC(), Port: int(f.Reached().Port()), JA4: f.Print.JA4}
	if client := f.Client().Addr(); client.IsValid() {
		a.Address = client.Unmap().WithZone("").String()
	}
	if h := f.Hello; h != nil {
		a.TLS, a.SNI, a.ALPN = true, h.SNI, h.ALPN
		if a.JA4 == "" { // who decides ahead of the flow has taken no fingerprints
			a.JA4 = h.JA4()
		}
		a.Versions = make([]string, len(h.Versions))
		for i, v := range h.Versions {
			a.Versions[i] = wire.VersionName(v)
		}
	}
	return a
}

// failed refuses a flow that r would take, or not, had its If not failed.
func failed(r *entry, err error) *flow.Decision {
	d := &flow.Decision{Reason: flow.MatchFailed, Err: err}
	if errors.Is(err, rule.ErrTooMuch) {
		d.Reason = flow.HelloTooLarge
	}
	if r.Decision != nil {
		d.Route, d.Pattern = r.Decision.Route, r.Decision.Pattern
	}
	return d
}
