package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"sallyport/internal/ca"
	"sallyport/internal/testnet"
)

// Who refuses which certificates is counted by our own words, how long verifying took
// is timed whatever came of it, and what we go by shows its age.
func TestMetricsOfVerdicts(t *testing.T) {
	t.Parallel()
	d, l := newDesk(t), newLogs(t)
	own := d.inter.Leaf([]string{"face.x.test"}, ca.OCSPAt(d.at("own")))
	cert, _, err := own.Write(d.dir, "own")
	if err != nil {
		t.Fatal(err)
	}
	d.answer("own", send(respond(t, d.delegate, d.good(own.Cert))))
	mute := d.inter.Leaf([]string{"mute.x.test"}, ca.OCSPAt(d.at("mute")))
	silent, _, err := mute.Write(d.dir, "mute")
	if err != nil {
		t.Fatal(err)
	}
	good, bad := d.shows(t, "good", yesterday(l.a, l.b)), d.shows(t, "bad", nil)
	p := runFile(t, fmt.Sprintf(`
metrics: tcp://127.0.0.1:0
ct_log_list: %[1]s
listeners:
- from: tcp://127.0.0.1:0
  name: good
  to: {addr: "tls://%[3]s", ca: %[2]s, name: a.x.test, ct: require}
- from: tcp://127.0.0.1:0
  name: bad
  to: {addr: "tls://%[4]s", ca: %[2]s, name: a.x.test, ct: require}
- from: tcp://127.0.0.1:0
  name: else
  to: {addr: "tls://%[3]s", ca: %[2]s, name: else.test}
- from: tls://127.0.0.1:0
  name: own
  cert: [%[5]s, %[6]s]
  client: {ca: %[2]s}
  allow: [{dns: good.test}]
  to: tcp://%[7]s
`, write(t, "logs.json", string(l.list(10*day))), d.anchors, good, bad, cert, silent, serveEach(t, echo)))
	mustAsk(t, p.Addr("good"), "level", "level")
	for _, listener := range []string{"bad", "bad", "else"} {
		ask(p.Addr(listener), "level")
	}
	for _, c := range []*ca.Leaf{d.Leaf([]string{"good.test"}), d.Leaf([]string{"bad.test"}), ca.Test(t).Leaf([]string{"good.test"})} {
		cfg := &tls.Config{RootCAs: d.Pool(), ServerName: "face.x.test", CurvePreferences: quick}
		showing(c)(cfg)
		if conn, err := tls.DialWithDialer(&net.Dialer{Timeout: testnet.Patience}, "tcp", p.Addr("own"), cfg); err == nil {
			conn.SetDeadline(time.Now().Add(testnet.Patience))
			conn.CloseWrite()
			conn.Read(make([]byte, 1))
			conn.Close()
		}
	}

	for _, want := range []struct{ reason, took, verifier, verdict string }{
		{"ct_missing", "out_verify_ms", "ct", "ct_missing"}, {"name_mismatch", "out_verify_ms", "pkix", "name_mismatch"},
		{"client_not_allowed", "in_verify_ms", "allow", "not_allowed"}, {"client_cert_unknown_ca", "", "pkix", "unknown_ca"},
	} {
		r := p.Reason(want.reason)
		if r.Text("verifier") != want.verifier || r.Text("verdict") != want.verdict || want.took != "" && r.Num(want.took) <= 0 {
			t.Errorf("%s: %v", want.reason, r)
		}
	}
	for listener, field := range map[string]string{"good": "out_verify_ms", "own": "in_verify_ms"} {
		r := p.Flow(listener, func(r testnet.Record) bool { return r.Text("listener") == listener && r.Text("reason") == "ok" })
		if r.Num(field) <= 0 || r.Num(field) > r.Num(field[:len(field)-len("verify_ms")]+"ms") || r.Text("verifier") != "" {
			t.Errorf("%s: %v", listener, r)
		}
	}
	p.Flows(7)

	staple := func(series string, c *ca.Leaf) string {
		return fmt.Sprintf(`sallyport_staple_%s_seconds{name=%q,serial="%x"}`, series, c.Cert.DNSNames[0], c.Cert.SerialNumber)
	}
	var page string
	eventually(t, "a staple", func() bool {
		_, page = curl(t, "http://"+paneAddr(p, "metrics")+"/metrics")
		return metric(t, page, staple("age", own)) > 0
	})
	const most = 2 * float64(time.Minute/time.Second)
	failures := `sallyport_verify_failures_total{reason=%q,side=%q,verifier=%q}`
	for name, want := range map[string][2]float64{
		fmt.Sprintf(failures, "ct_missing", "outbound", "ct"):      {2, 2},
		fmt.Sprintf(failures, "name_mismatch", "outbound", "pkix"): {1, 1},
		fmt.Sprintf(failures, "not_allowed", "inbound", "allow"):   {1, 1},
		fmt.Sprintf(failures, "unknown_ca", "inbound", "pkix"):     {1, 1},
		`sallyport_verify_seconds_count{side="outbound"}`:          {4, 4},
		`sallyport_verify_seconds_count{side="inbound"}`:           {2, 2}, // the third is refused before
		`sallyport_ct_log_list_age_seconds`:                        {(10 * day).Seconds(), (10 * day).Seconds() + most},
		staple("age", own):                                         {3600, 3600 + most},
		staple("left", own):                                        {day.Seconds() - most, day.Seconds()},
		staple("age", mute):                                        {-1, -1}, // there is none
		staple("left", mute):                                       {0, 0},
	} {
		if got := metric(t, page, name); got < want[0] || got > want[1] {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}
