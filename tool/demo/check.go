package demo

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/flow"
	"sallyport/secure"
	"sallyport/transport"
	"sallyport/verify"
	"sallyport/wire"
)

// check asks the plain server for its greeting through one listener, with
// sallyport's own client, and says what was agreed on.
func (d *demo) check(ctx context.Context, s station, port uint16) (string, error) {
	start := time.Now()
	f := &flow.Flow{Start: start}
	dialer := &transport.Dialer{Where: transport.Where{Host: "127.0.0.1", Port: port}, Timeout: 5 * time.Second}
	conn, err := dialer.Dial(ctx, f)
	if err != nil {
		return "", err
	}
	defer func() { conn.Close() }() // of what it has become
	conn.SetDeadline(start.Add(10 * time.Second))
	agreed := "plain"
	if s.tls {
		layer, err := d.client()
		if err != nil {
			return "", err
		}
		if conn, err = layer.Wrap(ctx, f, conn); err != nil {
			return "", err
		}
		agreed = wire.VersionName(f.Outbound[0].Version)
	}
	if err := greet(conn); err != nil {
		return "", err
	}
	return fmt.Sprintf("ok, %s, %.1f ms", agreed, float64(time.Since(start).Microseconds())/1000), nil
}

func greet(conn flow.Conn) error {
	request, err := http.NewRequest(http.MethodGet, "http://"+site+"/", nil)
	if err != nil {
		return err
	}
	request.Close = true
	if err := request.Write(conn); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err == nil && !strings.HasPrefix(string(body), greeting) {
		err = fmt.Errorf("the answer was %q", body)
	}
	return err
}

// client verifies the demo's certificate by the demo's CA, as a user's would.
func (d *demo) client() (flow.Layer, error) {
	anchors, err := verify.LoadAnchors(time.Now(), []string{filepath.Join(d.dir, "ca.pem")}, os.ReadFile)
	if err != nil {
		return nil, err
	}
	params, err := secure.Preset("intermediate")
	if err != nil {
		return nil, err
	}
	return secure.NewClient(secure.Client{
		Common: secure.Common{Params: params, Timeout: 5 * time.Second, Now: time.Now},
		SNI:    site, Name: site,
		Verify: verify.With(verify.PKIX{Anchors: anchors, From: "the demo", Profile: verify.Private}),
	}), nil
}
