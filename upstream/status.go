package upstream

import "time"

// PoolStatus is how a pool is at one moment.
type PoolStatus struct {
	Route   string         `json:"route"`
	Balance string         `json:"balance"`
	Servers []ServerStatus `json:"servers"`
}

// ServerStatus is how a server is. Flows are those of all routes that name it by
// the same address and ask it in the same way.
type ServerStatus struct {
	Addr    string    `json:"addr"`  // CARRIER://WHERE, as configured
	State   State     `json:"state"` // drained goes before up and down
	Since   time.Time `json:"since,omitzero"`
	Weight  int       `json:"weight"`
	Backup  bool      `json:"backup,omitempty"`
	Flows   int       `json:"flows"`
	Err     string    `json:"err,omitempty"` // of the last check or connection; empty once one is good, and the server up
	ErrAt   time.Time `json:"err_at,omitzero"`
	Service string    `json:"service,omitempty"` // whose SRV records lead there
	Checked bool      `json:"checked"`           // it is asked at intervals
}

// State is a word of a [ServerStatus].
type State string

const (
	Up      State = "up"
	Down    State = "down"
	Drained State = "drained"
)

// Pools gives all pools, in the order of the file.
func (s *Set) Pools() []PoolStatus {
	all := make([]PoolStatus, 0, len(s.pools))
	for _, p := range s.pools {
		one := PoolStatus{Route: p.Route, Balance: p.Balance.String()}
		for _, m := range p.all() {
			status := m.server.status()
			status.Weight, status.Backup = m.Weight, m.Backup
			if m.of != nil {
				status.Service = m.of.name
			}
			one.Servers = append(one.Servers, status)
		}
		for _, v := range p.services {
			if err := v.missing(); err != nil {
				one.Servers = append(one.Servers, ServerStatus{Addr: v.addr, State: Down, Err: err.Error()})
			}
		}
		all = append(all, one)
	}
	return all
}

func (s *Server) status() ServerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ServerStatus{Addr: s.spec.Addr, State: s.state(), Since: s.since, Flows: s.flows, ErrAt: s.errAt, Checked: s.checked}
	if s.err != nil {
		st.Err = s.err.Error()
	}
	return st
}

// state is asked while mu is held.
func (s *Server) state() State {
	switch {
	case s.drained:
		return Drained
	case s.down:
		return Down
	}
	return Up
}
