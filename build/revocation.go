package build

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/revoke"
	"sallyport/verify"
)

// softBudget is what a soft check may cost a handshake, once: what is slower goes
// on being fetched, for the next one.
const softBudget = time.Second

// asks are the words of one side about what is fetched to verify a peer.
type asks struct {
	side  string // to or client
	mode  config.Revocation
	crl   []string
	aia   config.Switch
	reach []netip.Prefix
	time  time.Duration // of the handshake; 0 has no end
}

func ofServer(c *config.Route) asks {
	return asks{"to", c.To.Revocation, c.To.CRL, c.To.AIA, c.To.Reach, c.Timeouts.Handshake}
}

func ofClient(c *config.Route) asks {
	return asks{"client", c.Client.Revocation, c.Client.CRL, c.Client.AIA, nil, c.Timeouts.Handshake}
}

// revocation gives the check that is always there: what is at hand is looked at
// whatever the mode.
func (b *builder) revocation(a asks, private bool) (verify.Check, error) {
	r := verify.Revocation{}
	for _, file := range a.crl {
		list, err := b.crlFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s.crl: %w", a.side, err)
		}
		r.CRLs = append(r.CRLs, list...)
	}
	switch a.mode {
	case config.RevocationSoft:
		r.Mode, r.Budget = verify.RevocationSoft, softBudget
	case config.RevocationHard:
		// Some of the time is the handshake's own.
		r.Mode, r.Budget = verify.RevocationHard, cmp.Or(a.time, 10*time.Second)*3/4
	default:
		return verify.Revoked(r), nil
	}
	var err error
	// Who named the places is certified by then: a private CA has them on private
	// addresses.
	r.Fetch, err = b.fetcher(private, a.reach)
	return verify.Revoked(r), err
}

// issuers gives who looks for missing intermediates, nil for nobody. Nothing
// vouches yet for who names the places, so that none of them is on a private address.
func (b *builder) issuers(a asks) (verify.Issuers, error) {
	if !a.aia {
		return nil, nil
	}
	f, err := b.fetcher(false, a.reach)
	if err != nil {
		return nil, err
	}
	return f.Issuers, nil
}

func (b *builder) fetcher(private bool, reach []netip.Prefix) (*revoke.Fetcher, error) {
	id := fmt.Sprint(private, reach)
	if f, ok := b.fetchers[id]; ok {
		return f, nil
	}
	cache, err := b.answers()
	if err != nil {
		return nil, err
	}
	f := cache.Fetcher(id, b.strangers(private, reach))
	b.fetchers[id] = f
	return f, nil
}

// answers is the cache of all that is fetched for certificates.
func (b *builder) answers() (*revoke.Cache, error) {
	if b.lasting.answers != nil {
		return b.lasting.answers, nil
	}
	o := revoke.Options{Now: b.now, Warn: func(text string) { b.o.Log.Warn(text) }}
	switch {
	case b.o.DryRun:
	case b.file.StateDir != "":
		o.Dir = filepath.Join(b.file.StateDir, "revocation")
	default:
		b.warn("no state_dir: answers about revocation are kept in memory only, and fetched anew at each start")
	}
	var err error
	b.lasting.answers, err = revoke.NewCache(o)
	if err != nil && o.Dir != "" { // a disk that is full or read-only: all that is kept there can be fetched
		b.warn("%v; answers about revocation are kept in memory only, and fetched anew at each start", err)
		o.Dir = ""
		b.lasting.answers, err = revoke.NewCache(o)
	}
	return b.lasting.answers, err
}

// crlFile reads a file of CRLs once for all who name it.
func (b *builder) crlFile(file string) ([]*revoke.CRL, error) {
	if list, ok := b.crls[file]; ok {
		return list, nil
	}
	data, _, err := credential.ReadUpTo(revoke.MaxCRLFile, file, b.o.Env)
	if err != nil {
		return nil, err
	}
	content := sha256.Sum256(data)
	list, ok := b.lasting.crls[content]
	if !ok {
		if list, err = revoke.ParseCRLs(data); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	b.parsed[content] = list
	for _, l := range list {
		if next := l.Next(); b.now().After(next) {
			b.warn("%s: the CRL of %.120q was good until %s and says nothing any more: fetch a newer one", file, l.Issuer().String(), next.UTC().Format(time.RFC3339))
		}
	}
	b.crls[file] = list
	return list, nil
}
