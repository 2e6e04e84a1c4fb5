package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"syscall"

	"sallyport/config"
)

// Client asks a running process.
type Client struct {
	addr config.Address
	http *http.Client
}

// NewClient asks the one whose control socket is at addr.
func NewClient(addr config.Address) *Client {
	network, where := "unix", addr.Unix
	if where == "" {
		network, where = "tcp", net.JoinHostPort(addr.Host, strconv.Itoa(int(addr.Port)))
	}
	return &Client{addr, &http.Client{Timeout: AnswerWithin, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, where)
		},
	}}}
}

const mostAnswer = 64 << 20

// Get writes the answer to a question.
func (c *Client) Get(ctx context.Context, path string) ([]byte, error) {
	return c.ask(ctx, http.MethodGet, path)
}

// Tell has something done.
func (c *Client) Tell(ctx context.Context, path string) error {
	_, err := c.ask(ctx, http.MethodPost, path)
	return err
}

func (c *Client) ask(ctx context.Context, method, path string) ([]byte, error) {
	// The name is nobody's: over a socket there is none, and over TCP it must be none.
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set(Header, "1")
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading what %s answers: %w", c.addr, err)
	}
	if answer.StatusCode == http.StatusOK {
		return body, nil
	}
	var f Failure
	if json.Unmarshal(bytes.TrimSpace(body), &f) == nil && f.Err != "" {
		return nil, errors.New(f.Err)
	}
	return nil, fmt.Errorf("%s answers %s: is it a control socket?", c.addr, answer.Status)
}

func (c *Client) unreachable(err error) error {
	hint := "does sallyport run, and with this `admin`? --admin names another"
	if errors.Is(err, syscall.EACCES) || errors.Is(err, fs.ErrPermission) {
		hint = "only its owner may: try it as that user, or as root"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("connecting to %s: %w\nhint: %s", c.addr, err, hint)
}
