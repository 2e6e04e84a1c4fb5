package spiffe

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"sallyport/credential"
	"sallyport/verify"
)

// Workload is what one agent has told us last.
type Workload struct {
	addr string // as go-spiffe writes it: unix:///run/agent.sock
	now  func() time.Time
	log  *slog.Logger
	told atomic.Pointer[told]
}

// told never changes.
type told struct {
	id         string
	credential *credential.Credential
	anchors    map[string]*verify.Anchors // by trust domain
	pool       *x509.CertPool             // all of them
}

// New gives a Workload that knows nothing yet.
func New(addr string, now func() time.Time, log *slog.Logger) (*Workload, error) {
	if err := workloadapi.ValidateAddress(addr); err != nil {
		return nil, err
	}
	return &Workload{addr: addr, now: now, log: log}, nil
}

// Known says whether the agent has told us anything.
func (w *Workload) Known() bool { return w.told.Load() != nil }

// Fetch asks once.
func (w *Workload) Fetch(ctx context.Context) error {
	c, err := workloadapi.New(ctx, workloadapi.WithAddr(w.addr))
	if err != nil {
		return err
	}
	defer c.Close()
	x, err := c.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	return w.take(x)
}

// Run listens to the agent until ctx ends. While it is away, what it said last holds.
func (w *Workload) Run(ctx context.Context) {
	c, err := workloadapi.New(ctx, workloadapi.WithAddr(w.addr))
	if err != nil {
		w.log.Error("SPIFFE agent", "addr", w.addr, "err", err.Error())
		return
	}
	defer c.Close()
	// It ends with ctx alone; all else it tells the watcher.
	_ = c.WatchX509Context(ctx, &watcher{w: w})
}

// watcher is called from one goroutine.
type watcher struct {
	w    *Workload
	said string
}

func (o *watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	o.said = ""
	if err := o.w.take(x); err != nil {
		o.w.log.Error("what the SPIFFE agent says is not taken", "addr", o.w.addr, "err", err.Error())
	}
}

func (o *watcher) OnX509ContextWatchError(err error) {
	// It is tried again each few seconds, and need not be said each time.
	if text := err.Error(); text != o.said && !errors.Is(err, context.Canceled) {
		o.said = text
		now := "what it said last holds"
		if !o.w.Known() {
			now = "until it answers, who needs it is refused"
		}
		o.w.log.Warn("no word from the SPIFFE agent; "+now, "addr", o.w.addr, "err", text)
	}
}

// take has what x says hold from now on.
func (w *Workload) take(x *workloadapi.X509Context) error {
	svid := x.DefaultSVID()
	key := svid.PrivateKey
	if key == nil || len(svid.Certificates) == 0 {
		return errors.New("an SVID without a certificate or a key")
	}
	if _, err := verify.SVID(svid.Certificates[0]); err != nil {
		return err
	}
	t := &told{
		id: svid.ID.String(), credential: &credential.Credential{Chain: svid.Certificates, Key: key},
		anchors: map[string]*verify.Anchors{}, pool: x509.NewCertPool(),
	}
	for _, b := range x.Bundles.Bundles() {
		domain := b.TrustDomain().Name()
		a, err := anchors(w.now(), domain, b.X509Authorities())
		if err != nil {
			w.log.Warn("a SPIFFE trust domain is left out", "domain", domain, "err", err.Error())
			continue
		}
		t.anchors[domain] = a
		for _, c := range b.X509Authorities() {
			t.pool.AddCert(c)
		}
	}
	w.told.Store(t)
	w.log.Info("SPIFFE identity", "id", t.id, "until", svid.Certificates[0].NotAfter.UTC().Format(time.RFC3339), "domains", len(t.anchors))
	return nil
}

func anchors(now time.Time, domain string, certs []*x509.Certificate) (*verify.Anchors, error) {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return verify.LoadAnchors(now, []string{"the bundle of " + domain}, func(string) ([]byte, error) { return text, nil })
}

// Credential is our SVID, while it is good.
func (w *Workload) Credential(context.Context, *credential.Request) (*credential.Credential, error) {
	t := w.told.Load()
	if t == nil {
		return nil, fmt.Errorf("the SPIFFE agent at %s has not said who we are: %w", w.addr, credential.ErrNoCredential)
	}
	if end := t.credential.Chain[0].NotAfter; w.now().After(end) {
		return nil, fmt.Errorf("the SVID of %s ended at %s, and the SPIFFE agent gives no other: %w", t.id, end.UTC().Format(time.RFC3339), credential.ErrNoCredential)
	}
	return t.credential, nil
}

// Pool has the anchors of all trust domains; it is never nil, which would mean the
// system's.
func (w *Workload) Pool() *x509.CertPool {
	if t := w.told.Load(); t != nil {
		return t.pool
	}
	return x509.NewCertPool()
}
