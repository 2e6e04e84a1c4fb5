package testca

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Step is one connection of a client that comes again.
type Step struct {
	Name    string
	Version uint16
	ticket  bool // the server gives one
	Resumed bool // the client has one of this version, if it ever got it
}

// Steps are the connections that each chain is presented on: a first one, a second
// to a verifier that may remember the chain, and resumed ones.
func Steps() []Step {
	return []Step{
		{"first", tls.VersionTLS13, false, false},
		{"second", tls.VersionTLS13, true, false},
		{"resumed", tls.VersionTLS13, true, true},
		{"TLS 1.2", tls.VersionTLS12, true, false},
		{"TLS 1.2, resumed", tls.VersionTLS12, true, true},
	}
}

// Server presents one of many chains, by the name that its client sends, and goes
// with each name through [Steps]. It answers a line by the same, and keeps all that
// it was told.
type Server struct {
	Addr string
	keys [32]byte // of tickets

	mu   sync.Mutex
	rows map[string]*presented
}

type presented struct {
	made  *Made
	cert  tls.Certificate
	steps int
	told  []byte
}

// bound is how long one connection may last.
const bound = 40 * time.Second

// Serve listens until done is closed.
func Serve(done <-chan struct{}) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{Addr: l.Addr().String(), rows: map[string]*presented{}}
	rand.Read(s.keys[:])
	go func() { <-done; l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s, nil
}

// Present has the server show m to clients that send name.
func (s *Server) Present(name string, m *Made) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[name] = &presented{made: m, cert: m.TLS()}
}

// TLS is the chain in the form of crypto/tls, with a key that this signs with. In
// place of those that it refuses, or nobody has, stands another: whoever looks at
// the chain refuses before he would see.
func (m *Made) TLS() tls.Certificate {
	c := tls.Certificate{Certificate: m.Chain, PrivateKey: m.Key}
	switch k := m.Key.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P224() {
			return c
		}
	case *rsa.PrivateKey:
		if k.N.BitLen() >= 1024 {
			return c
		}
	case ed25519.PrivateKey:
		return c
	}
	c.PrivateKey = newKey(m)
	return c
}

// Made is what the server shows to clients that send name.
func (s *Server) Made(name string) *Made {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[name].made
}

// Skip leaves out the next step of a name.
func (s *Server) Skip(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[name].steps++
}

// Told is all that clients with that name have said.
func (s *Server) Told(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.rows[name].told)
}

// Came is how many clients with that name have come.
func (s *Server) Came(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[name].steps
}

// config is that of the next step of a name.
func (s *Server) config(name string) (*tls.Config, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.rows[name]
	if p == nil || p.steps >= len(Steps()) {
		return nil, fmt.Errorf("nothing more to present to %q", name)
	}
	step := Steps()[p.steps]
	p.steps++
	cfg := &tls.Config{
		Certificates: []tls.Certificate{p.cert}, MinVersion: step.Version, MaxVersion: step.Version,
		SessionTicketsDisabled: !step.ticket,
		CurvePreferences:       []tls.CurveID{tls.X25519},
	}
	cfg.SetSessionTicketKeys([][32]byte{s.keys})
	return cfg, nil
}

func (s *Server) serve(c net.Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	var name string
	t := tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name = h.ServerName
		return s.config(name)
	}})
	r := bufio.NewReader(t)
	line, err := r.ReadString('\n')
	if line != "" {
		s.mu.Lock()
		s.rows[name].told = append(s.rows[name].told, line...)
		s.mu.Unlock()
	}
	if err != nil {
		return
	}
	io.WriteString(t, line)
	t.CloseWrite()
	io.Copy(io.Discard, r)
}
