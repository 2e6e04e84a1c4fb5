package build

import (
	"crypto/x509"
	"fmt"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/dane"
)

// Shown is a certificate that a route shows to its clients.
type Shown struct {
	Route     string
	File      string
	Port      uint16 // 0 where a socket of systemd or a unix socket has none that is known
	Transport string
	Chain     []*x509.Certificate
}

// ShownBy gives those of f, in its order; a route that shows what another one of its
// listener shows is not named again.
func ShownBy(f *config.File, o Options) ([]Shown, error) {
	o.DryRun = true
	b, err := newBuilder(f, o)
	if err != nil {
		return nil, err
	}
	defer b.program.Close()
	var all []Shown
	for i := range f.Listeners {
		l := &f.Listeners[i]
		seen := map[string]bool{}
		for j := range l.Routes {
			c := &l.Routes[j]
			if c.Action != config.Terminate || !l.From.Secure() || len(c.Cert) == 0 {
				continue
			}
			store, _, err := credential.Load(credential.Options{
				Certs: c.Cert, Keys: c.Key, AllowKeyMode: bool(c.Unsafe.KeyMode), Now: b.now(), Env: b.o.Env,
			})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", named(c.Pos, c.Name), err)
			}
			files := store.Expiries() // in the same order
			for n, held := range store.Credentials() {
				if leaf := string(held.Chain[0].Raw); !seen[leaf] {
					seen[leaf] = true
					all = append(all, Shown{c.Name, files[n].File, l.From.Port, transportOf(l.From), held.Chain})
				}
			}
		}
	}
	return all, nil
}

// Resolver is who answers for TLSA records by f.
func Resolver(f *config.File, o Options) (*dane.Resolver, error) {
	o.DryRun = true
	b, err := newBuilder(f, o)
	if err != nil {
		return nil, err
	}
	defer b.program.Close()
	return b.resolver()
}
