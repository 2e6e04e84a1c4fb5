package revoke

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrNoSource is in the error where a certificate names nobody to ask. That is
// normal: Let's Encrypt has no OCSP any more, and small CAs have neither.
var ErrNoSource = errors.New("the certificate names no place to ask")

// errNoClient is what a cache without a client says.
var errNoClient = errors.New("nothing is fetched here")

// Bounds on what a certificate can have us ask.
const (
	maxURLs      = 4
	maxURL       = 1024 // bytes
	maxRedirects = 3
	perURL       = 4 * time.Second // so that the second is tried within a handshake's time
	perCRL       = 20 * time.Second
)

// getLimit is RFC 5019, section 5: a request of up to 255 bytes goes by GET, which
// caches on the way can answer.
const getLimit = 255

// places are those of list that may be asked: http alone, since what is fetched is
// signed, and https would need a certificate to be verified first.
func places(list []string) []string {
	var good []string
	for _, s := range list {
		if u, err := url.Parse(s); err == nil && len(s) <= maxURL && isPlain(u) && len(good) < maxURLs {
			good = append(good, s)
		}
	}
	return good
}

// hostOf is the host of one of [places].
func hostOf(place string) string {
	u, err := url.Parse(place)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}

func isPlain(u *url.URL) bool { return u.Scheme == "http" && u.Host != "" && u.User == nil }

// plain is a copy of c that follows few redirects, and those to http alone. That
// addresses are dialled which may be is c's own care.
func plain(c *http.Client) *http.Client {
	if c == nil {
		return nil
	}
	cc := *c
	cc.Jar = nil
	cc.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if !isPlain(r.URL) {
			return fmt.Errorf("redirected to %.200q, and only http is asked", r.URL)
		}
		if len(via) > maxRedirects {
			return fmt.Errorf("redirected more than %d times", maxRedirects)
		}
		return nil
	}
	return &cc
}

// statusError is an answer that is none.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("it answered %d %s", int(e), http.StatusText(int(e)))
}

// ask gets where or, with an OCSP request for a body, posts to it, and reads at most
// limit bytes within d. Errors go by place.
func ask(ctx context.Context, client *http.Client, place, where string, body []byte, limit int, d time.Duration) (_ []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("asking %.200q: %w", place, err)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	method, in := http.MethodGet, io.Reader(http.NoBody)
	if body != nil {
		method, in = http.MethodPost, bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, where, in)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "sallyport")
	if body != nil {
		r.Header.Set("Content-Type", "application/ocsp-request")
	}
	resp, err := client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // which would have the whole place in it once more
			err = u.Err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, errSlow
		}
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode)
	}
	tooMuch := fmt.Errorf("it sent more than %d bytes", limit)
	if resp.ContentLength > int64(limit) {
		return nil, tooMuch
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, errSlow
	}
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, tooMuch
	}
	return b, nil
}

var errSlow = errors.New("no answer in time")

// each tries places in their order until one of them gives something that take
// takes.
func each[V any](list []string, take func(place string) (V, error)) (v V, err error) {
	good := places(list)
	if len(good) == 0 {
		return v, ErrNoSource
	}
	for _, p := range good {
		var one error
		if v, one = take(p); one == nil {
			return v, nil
		}
		if err != nil {
			one = fmt.Errorf("%w; %w", err, one)
		}
		err = one
	}
	return v, err
}
