package secure

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"sallyport/verify"
)

// Tickets is the secret that session tickets are sealed with. Each day it is
// replaced by a hash of itself: what has been forgotten cannot be computed
// again, so that a stolen secret opens the tickets of at most three days. A
// route's key also hashes in its name and its trust, so that no ticket crosses
// from one route to another, nor a change of who may pass.
type Tickets struct {
	mu     sync.Mutex
	epoch  int64    // of secret: the oldest still accepted
	secret [32]byte // of epoch
	file   string   // where it is kept; empty is nowhere
}

const (
	ticketDay  = 24 * time.Hour
	ticketsOld = 2 // epochs accepted besides today's
)

// NewTickets gives a fresh secret.
func NewTickets(now time.Time) *Tickets {
	t := &Tickets{epoch: ticketEpoch(now) - ticketsOld}
	rand.Read(t.secret[:])
	return t
}

// LoadTickets keeps the secret in dir, so that sessions outlive a restart. A
// file with no good secret is replaced and named in a warning; one that cannot be
// written is a warning too, since the secret in memory is good.
func LoadTickets(dir string, now time.Time) (t *Tickets, warnings []string, err error) {
	file := filepath.Join(dir, "tickets.secret")
	t = NewTickets(now)
	t.file = file
	meaning := "the secret is in memory only, so sessions end with the process"
	old, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, nil, fmt.Errorf("reading the ticket secret: %w", err)
	default:
		epoch, secret, ok := parseSecret(string(old))
		switch {
		case !ok || epoch > t.epoch:
			warnings = append(warnings, fmt.Sprintf("%s is damaged or from the future; it is discarded, sessions start anew", file))
		case epoch == t.epoch:
			t.secret = secret
			return t, nil, nil // nothing to write, where that may not be possible
		default:
			t.secret = ratchet(secret, t.epoch-epoch)
			if t.epoch-epoch <= tooOld {
				meaning = "sessions go on, but who steals the older secret there opens the tickets since then"
			}
		}
	}
	if err := t.save(); err != nil {
		warnings = append(warnings, fmt.Sprintf("%s: %v; %s", file, err, meaning))
	}
	return t, warnings, nil
}

func ticketEpoch(now time.Time) int64 { return now.Unix() / int64(ticketDay/time.Second) }

// tooOld bounds the work for a file from long ago.
const tooOld = 10000

func parseSecret(s string) (epoch int64, secret [32]byte, ok bool) {
	var text string
	if n, err := fmt.Sscanf(strings.TrimSpace(s), "sallyport-tickets 1 %d %64s", &epoch, &text); n != 2 || err != nil {
		return 0, secret, false
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(secret) || epoch < 0 {
		return 0, secret, false
	}
	return epoch, [32]byte(b), true
}

func ratchet(secret [32]byte, times int64) [32]byte {
	if times > tooOld {
		rand.Read(secret[:])
		return secret
	}
	for ; times > 0; times-- {
		secret = derive(secret, "sallyport tickets: next day")
	}
	return secret
}

func derive(secret [32]byte, info string) [32]byte {
	key, err := hkdf.Key(sha256.New, secret[:], nil, info, 32)
	if err != nil {
		panic(err) // only for lengths that HKDF does not have
	}
	return [32]byte(key)
}

// save writes the file whole or not at all.
func (t *Tickets) save() error {
	if t.file == "" {
		return nil
	}
	text := fmt.Sprintf("sallyport-tickets 1 %d %s\n", t.epoch, hex.EncodeToString(t.secret[:]))
	tmp, err := os.CreateTemp(filepath.Dir(t.file), ".tickets-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keeping the ticket secret: %w", err)
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.WriteString(text); err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), t.file)
	}
	if err != nil {
		return fmt.Errorf("keeping the ticket secret: %w", err)
	}
	return nil
}

// keys gives a route's keys at now: today's first, then those still accepted.
// A clock that goes back does not bring old keys back.
func (t *Tickets) keys(route string, trust [32]byte, now time.Time) (epoch int64, keys [][32]byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	epoch = max(ticketEpoch(now), t.epoch+ticketsOld)
	if behind := epoch - ticketsOld - t.epoch; behind > 0 {
		t.secret, t.epoch = ratchet(t.secret, behind), t.epoch+behind
		err = t.save()
	}
	secret := t.secret
	for e := t.epoch; e <= epoch; e++ {
		key := derive(secret, "sallyport tickets: route "+route+"\x00"+string(trust[:]))
		keys = append([][32]byte{key}, keys...)
		secret = ratchet(secret, 1)
	}
	return epoch, keys, err
}

// renewTicketKeys gives base the keys of today.
func (s *server) renewTicketKeys() {
	now := s.Now()
	if !s.Params.Tickets || ticketEpoch(now) <= s.epoch.Load() {
		return
	}
	s.keys.Lock()
	defer s.keys.Unlock()
	if ticketEpoch(now) <= s.epoch.Load() {
		return
	}
	// A full disk must not end handshakes: the keys in memory are good.
	epoch, keys, _ := s.Server.Tickets.keys(s.Route, s.Trust, now)
	s.base.SetSessionTicketKeys(keys)
	s.epoch.Store(epoch)
}

// resumption puts the client's chain into its ticket and verifies it again when
// the ticket comes back. One that no longer passes gives a full handshake.
func (s *server) resumption(ctx context.Context, h *handshake, cfg *tls.Config) (
	func(tls.ConnectionState, *tls.SessionState) ([]byte, error),
	func([]byte, tls.ConnectionState) (*tls.SessionState, error),
) {
	seal := func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, marshalChain(cs.PeerCertificates))
		return cfg.EncryptTicket(cs, ss)
	}
	open := func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := cfg.DecryptTicket(ticket, cs)
		if err != nil || ss == nil {
			return nil, err
		}
		if len(ss.Extra) != 1 || !s.stillPasses(ctx, h, cs, ss.Extra[0]) {
			return nil, nil
		}
		// What is sealed again later gets its chain anew.
		ss.Extra = nil
		return ss, nil
	}
	return seal, open
}

func (s *server) stillPasses(ctx context.Context, h *handshake, cs tls.ConnectionState, extra []byte) bool {
	chain, err := parseChain(extra)
	if err != nil {
		return false
	}
	if len(chain) == 0 {
		return s.Auth != AuthRequire && !s.Named
	}
	p := presented(verify.Client, h.flow, cs, s.Now())
	p.Chain, p.Resumed = chain, true
	start := time.Now()
	_, err = s.Verify.Verify(ctx, p)
	h.verified += time.Since(start)
	return err == nil
}

func marshalChain(chain []*x509.Certificate) []byte {
	var b []byte
	for _, c := range chain {
		b = binary.BigEndian.AppendUint32(b, uint32(len(c.Raw)))
		b = append(b, c.Raw...)
	}
	return b
}

func parseChain(b []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for s := cryptobyte.String(b); !s.Empty(); {
		var n uint32
		var der []byte
		if !s.ReadUint32(&n) || !s.ReadBytes(&der, int(n)) {
			return nil, errors.New("the chain in a ticket is cut")
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	return chain, nil
}
