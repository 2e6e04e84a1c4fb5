package revoke

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Options are what a [Cache] is given.
type Options struct {
	Dir  string            // where answers outlive a restart; empty: nowhere
	Now  func() time.Time  // that answers are judged by
	Warn func(text string) // nil: nobody is told
}

// Cache keeps answers about revocation, and missing issuers, in memory and on disk.
// Each kind has bounds of its own. A [Fetcher] fills it.
type Cache struct {
	disk    *disk
	now     func() time.Time
	warn    func(string)
	answers *shelf[*Answer]
	crls    *shelf[*CRL]
	issuers *shelf[[]*x509.Certificate]
	broken  sync.Once
}

// Bounds of a Cache.
const (
	maxAnswers     = 8192
	maxAnswerBytes = 32 << 20
	maxCRLs        = 1024
	maxCRLBytes    = 128 << 20
	maxIssuerSets  = 512
	maxIssuerBytes = 8 << 20
	maxFiles       = maxAnswers + maxCRLs
	maxFileBytes   = 256 << 20
)

// Bounds of fetches at one time; certificates that name places come from CAs that
// are trusted, but from any of their customers.
const (
	maxFlights    = 256 // of small things
	maxCRLFlights = 64  // each may take [MaxCRL] of memory
)

// NewCache makes o.Dir.
func NewCache(o Options) (*Cache, error) {
	d, err := openDisk(o.Dir, maxFiles, maxFileBytes)
	if err != nil {
		return nil, err
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return &Cache{
		disk: d, now: o.Now, warn: o.Warn,
		answers: newShelf[*Answer](o.Now, maxAnswers, maxAnswerBytes, maxFlights),
		crls:    newShelf[*CRL](o.Now, maxCRLs, maxCRLBytes, maxCRLFlights),
		issuers: newShelf[[]*x509.Certificate](o.Now, maxIssuerSets, maxIssuerBytes, maxFlights),
	}, nil
}

// Close ends what is being fetched and waits for it.
func (c *Cache) Close() {
	c.answers.close()
	c.crls.close()
	c.issuers.close()
}

// Fetcher fetches what a [Cache] does not have, once for all who want it.
type Fetcher struct {
	*Cache
	client *http.Client
	id     string
}

// Fetcher gives one that goes by client, which has to refuse addresses that must
// not be reached, also after a redirect and a change of the DNS; nil fetches nothing.
// Those of one id take each other's failures for their own.
func (c *Cache) Fetcher(id string, client *http.Client) *Fetcher {
	return &Fetcher{c, plain(client), id + "\x00"}
}

// OCSP gives what the responders that cert names say of it.
func (c *Fetcher) OCSP(ctx context.Context, cert, issuer *x509.Certificate) (*Answer, error) {
	responders := places(cert.OCSPServer)
	if len(responders) == 0 {
		return nil, fmt.Errorf("%w: it has no OCSP responder", ErrNoSource)
	}
	a, err := c.answers.get(ctx, c.id+keyOf(cert, issuer), hostOf(responders[0]), func(ctx context.Context, old *kept[*Answer]) (*kept[*Answer], error) {
		return c.loadOCSP(ctx, cert, issuer, old)
	})
	if err != nil {
		return nil, fmt.Errorf("OCSP: %w", err)
	}
	return a, nil
}

// recall gives what is kept on disk of an answer, nil if nothing that is good.
func (c *Fetcher) recall(cert, issuer *x509.Certificate) *Answer {
	der := c.disk.read(fileName(keyOf(cert, issuer), ocspFile), MaxOCSP)
	if der == nil {
		return nil
	}
	a, err := judgeFetched(der, cert, issuer, c.now())
	if err != nil {
		return nil // whoever fetches it says what is wrong with it
	}
	return a
}

// keyOf is who is asked about: a serial number of an issuer, with its name and key.
func keyOf(cert, issuer *x509.Certificate) string {
	h := sha256.New()
	h.Write(issuer.RawSubject) // DER says its own length
	h.Write(issuer.RawSubjectPublicKeyInfo)
	h.Write(cert.SerialNumber.Bytes())
	return string(h.Sum(nil))
}

func (c *Fetcher) loadOCSP(ctx context.Context, cert, issuer *x509.Certificate, old *kept[*Answer]) (*kept[*Answer], error) {
	name := fileName(keyOf(cert, issuer), ocspFile)
	keep := func(a *Answer) *kept[*Answer] { return &kept[*Answer]{a, len(a.raw) + 256, a.This, a.Next} }
	if old == nil {
		if der := c.disk.read(name, MaxOCSP); der != nil {
			a, err := judgeFetched(der, cert, issuer, c.now())
			if err == nil {
				return keep(a), nil
			}
			c.discard(name, err)
		}
	}
	if c.client == nil {
		return nil, errNoClient
	}
	a, err := fetchOCSP(ctx, c.client, cert, issuer, c.now())
	if err != nil {
		return nil, err
	}
	if old != nil && a.This.Before(old.value.This) {
		// Somebody shows what was true before.
		return nil, fmt.Errorf("the OCSP response is of %s, older than the one that is known", stamp(a.This))
	}
	c.keep(name, a.raw)
	return keep(a), nil
}

// CRL gives what the CRLs that cert names say of it.
func (c *Fetcher) CRL(ctx context.Context, cert, issuer *x509.Certificate) (*Answer, error) {
	if len(places(cert.CRLDistributionPoints)) == 0 {
		return nil, fmt.Errorf("%w: it has no CRL distribution point", ErrNoSource)
	}
	// All points of a certificate have the same list, or another's part of it that
	// Judge refuses, so one that serves is enough.
	a, err := each(cert.CRLDistributionPoints, func(place string) (*Answer, error) {
		list, err := c.crls.get(ctx, c.id+place+"\x00"+keyOf(issuer, issuer), hostOf(place), func(ctx context.Context, old *kept[*CRL]) (*kept[*CRL], error) {
			return c.loadCRL(ctx, place, issuer, old)
		})
		if err != nil {
			return nil, err
		}
		return list.Judge(cert, issuer, c.now())
	})
	if err != nil {
		return nil, fmt.Errorf("CRL: %w", err)
	}
	return a, nil
}

func (c *Fetcher) loadCRL(ctx context.Context, place string, issuer *x509.Certificate, old *kept[*CRL]) (*kept[*CRL], error) {
	name := fileName(place+"\x00"+keyOf(issuer, issuer), crlFile)
	read := func(data []byte) (*kept[*CRL], error) {
		l, err := ParseCRL(data)
		if err != nil {
			return nil, err
		}
		if err := l.signedBy(issuer); err != nil {
			return nil, err
		}
		this, next := l.list.ThisUpdate, l.list.NextUpdate
		return &kept[*CRL]{l, l.size(), this, next}, current("CRL", this, next, c.now())
	}
	if old == nil {
		if data := c.disk.read(name, MaxCRL); data != nil {
			k, err := read(data)
			if err == nil {
				return k, nil
			}
			c.discard(name, err)
		}
	}
	if c.client == nil {
		return nil, errNoClient
	}
	data, err := ask(ctx, c.client, place, place, nil, MaxCRL, perCRL)
	if err != nil {
		return nil, err
	}
	k, err := read(data)
	if err != nil {
		return nil, fmt.Errorf("from %.200q: %w", place, err)
	}
	// A CA that was set up anew counts from the start, and has a list of a later time.
	if old != nil && k.value.older(old.value) && (old.at(c.now()) || !k.begins.After(old.begins)) {
		return nil, fmt.Errorf("from %.200q: the CRL is older than the one that is known", place)
	}
	c.keep(name, k.value.list.Raw)
	return k, nil
}

// discard drops a file, and names it where it was damaged and not just old.
func (c *Cache) discard(name string, why error) {
	if !errors.Is(why, errStale) {
		c.warn(fmt.Sprintf("%s is damaged and was removed; it is fetched anew: %v", c.disk.path(name), why))
	}
	c.disk.remove(name)
}

// keep says once that nothing can be kept: a full disk is not worth a line a fetch.
func (c *Cache) keep(name string, b []byte) {
	if err := c.disk.write(name, b, c.now()); err != nil {
		c.broken.Do(func() { c.warn(fmt.Sprintf("%v; it is kept in memory only", err)) })
	}
}
