package build

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"sallyport/transport"
)

// Bounds on what is fetched beside the flows: revocation lists, OCSP responses,
// missing intermediates, lists of logs. Who asks bounds the body and the whole.
const (
	fetchDial    = 3 * time.Second
	fetchAnswer  = 10 * time.Second // until the headers of a response
	fetchHeaders = 16 << 10
	fetchConns   = 4 // to one host
	fetchHops    = 3 // redirects
)

// resolves are the addresses that the command line gives to names.
func (b *builder) resolves() []transport.Override {
	var list []transport.Override
	for _, r := range b.file.Resolve {
		list = append(list, transport.Override{Host: r.Host, Port: r.Port, Addr: r.Addr})
	}
	return list
}

// strangers gives a client for addresses that certificates name. private is for
// those whose issuer is an anchor of the operator's own, whose servers often have
// such addresses.
func (b *builder) strangers(private bool, reach []netip.Prefix) *http.Client {
	g := &transport.Guard{Timeout: fetchDial, Resolve: b.resolves(), Reach: reach, Private: private}
	if r := b.lasting.names; r != nil {
		g.Names = func(ctx context.Context, host string) ([]netip.Addr, error) {
			addrs, _, err := asked{r}.Addrs(ctx, host)
			return addrs, err
		}
	}
	return fetcher(g.DialContext)
}

// operators gives a client for addresses that the configuration names. The system
// is asked for theirs, since some who use it outlive a reload, and `resolver` need not.
func (b *builder) operators() *http.Client {
	every := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	g := &transport.Guard{Timeout: fetchDial, Resolve: b.resolves(), Reach: every, Private: true}
	return fetcher(g.DialContext)
}

func fetcher(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  nil, // the environment does not say where we go
			DialContext:            dial,
			TLSHandshakeTimeout:    fetchDial,
			ResponseHeaderTimeout:  fetchAnswer,
			MaxResponseHeaderBytes: fetchHeaders,
			MaxConnsPerHost:        fetchConns,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        30 * time.Second,
			DisableCompression:     true, // a small body must not become a large one
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > fetchHops {
				return errors.New("too many redirects")
			}
			if s := r.URL.Scheme; s != "http" && s != "https" {
				return errors.New("a redirect to " + s + ":")
			}
			return nil
		},
	}
}
