package observe

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"sallyport/flow"
	"sallyport/wire"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func ended(id uint64) *flow.Flow {
	return &flow.Flow{
		ID: id, Start: time.Now(),
		Origin:   flow.Origin{Listener: "l", Client: netip.MustParseAddrPort("192.0.2.1:99")},
		Decision: &flow.Decision{Route: "l/1", Pattern: "offload"},
		Hello:    &wire.Hello{SNI: "a.example"},
		Peeked:   time.Millisecond,
		Inbound:  []flow.Session{{Version: 0x0304, Group: 0x11ec, Took: 2 * time.Millisecond, Verified: time.Millisecond}},
		Outbound: []flow.Session{{Version: 0x0303, Group: 29, Resumed: true}},
		Sent:     [2]int64{3, 4}, Progress: new(flow.Progress),
	}
}

func scrape(t testing.TB, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// What is counted is what has happened, of flows alive and ended.
func TestMetrics(t *testing.T) {
	m := NewMetrics("v1", start)
	m.Datagrams = func() []Datagrams { return []Datagrams{{"d", "not_dtls", 7}} }
	m.Lost = func() uint64 { return 9 }
	m.Servers = func() []Servers { return []Servers{{"l/1", "up", 2}, {"l/1", "down", 0}} }
	lists := 90 * time.Second
	m.Ages = func() Ages {
		held := Staple{Name: "a.example", Serial: "1f", Held: true, Age: time.Minute, Left: -time.Second}
		return Ages{LogLists: &lists, Staples: []Staple{held, held, {Name: "odd\xff", Serial: "2"}}}
	}
	m.SetCertificates([]Certificate{{"site.pem", "a.example", start}, {"site.pem", "a.example", start.Add(time.Hour)}, {"odd\xff", "", start}})
	m.Limit("l", "flows")
	m.Reloaded(start.Add(time.Hour), nil)
	m.Reloaded(start.Add(2*time.Hour), io.EOF)
	for id := range uint64(40) {
		f := ended(id)
		m.Begin(f)
		var e *flow.Error
		if id%4 == 0 {
			e = flow.Fail(flow.ClientRejectedLeaf, "no")
			e.Alerts.Received = 48
		}
		m.End(f, e)
		m.End(f, e) // which counts once
	}
	refused := &flow.Flow{ID: 100, Start: time.Now(), Origin: flow.Origin{Listener: "l"}}
	m.Begin(refused)
	no := flow.Fail(flow.HelloMalformed, "no")
	no.Alerts.Sent = 50
	m.End(refused, no)
	cert := &flow.Flow{ID: 103, Start: time.Now(), Origin: flow.Origin{Listener: "l"}}
	m.Begin(cert)
	no = flow.Fail(flow.PinMismatch, "no")
	no.Refusal = &flow.Refusal{Verifier: "pin", Reason: "pin_mismatch", Took: time.Second}
	m.End(cert, no)
	open := ended(101)
	m.Begin(open)
	open.Progress.Reach(flow.StageRelay)
	open.Progress.Moved(flow.Up, 1000)
	odd := flow.Fail(flow.ServerAlert, "no")
	odd.Alerts.Received = 222
	other := ended(102)
	other.Sent = [2]int64{}
	m.Begin(other)
	m.End(other, odd)

	got := scrape(t, m)
	for _, want := range []string{
		`sallyport_build_info{version="v1"} 1`,
		`sallyport_flows_total{listener="l",reason="ok",route="l/1"} 30`,
		`sallyport_flows_total{listener="l",reason="client_rejected_leaf",route="l/1"} 10`,
		`sallyport_flows_total{listener="l",reason="hello_malformed",route=""} 1`,
		`sallyport_flows_open{listener="l"} 1`,
		`sallyport_bytes_total{direction="up",listener="l",route="l/1"} 1120`,
		`sallyport_bytes_total{direction="down",listener="l",route="l/1"} 160`,
		`sallyport_handshakes_total{group="X25519MLKEM768",resumed="false",side="inbound",version="TLS 1.3"} 41`,
		`sallyport_handshakes_total{group="X25519",resumed="true",side="outbound",version="TLS 1.2"} 41`,
		`sallyport_alerts_total{alert="unknown_ca",direction="received",side="inbound"} 10`,
		`sallyport_alerts_total{alert="decode_error",direction="sent",side="inbound"} 1`,
		`sallyport_alerts_total{alert="unknown",direction="received",side="outbound"} 1`,
		`sallyport_stage_seconds_count{stage="inbound"} 41`,
		`sallyport_stage_seconds_count{stage="peek"} 41`,
		`sallyport_flow_seconds_count 43`,
		`sallyport_certificate_expiry_timestamp_seconds{file="site.pem",name="a.example"} 1.7672256e+09`,
		`sallyport_certificate_expiry_timestamp_seconds{file="odd?",name=""} 1.7672256e+09`,
		`sallyport_reloads_total{result="good"} 1`,
		`sallyport_reloads_total{result="failed"} 1`,
		`sallyport_config_loaded_timestamp_seconds 1.7672292e+09`,
		`sallyport_limit_hits_total{limit="flows",listener="l"} 1`,
		`sallyport_datagrams_total{event="not_dtls",listener="d"} 7`,
		`sallyport_log_lines_lost_total 9`,
		`sallyport_servers{route="l/1",state="up"} 2`,
		`sallyport_servers{route="l/1",state="down"} 0`,
		`sallyport_verify_failures_total{reason="pin_mismatch",side="outbound",verifier="pin"} 1`,
		`sallyport_verify_seconds_count{side="inbound"} 41`,
		`sallyport_verify_seconds_count{side="outbound"} 1`,
		`sallyport_verify_seconds_sum{side="outbound"} 1`,
		`sallyport_ct_log_list_age_seconds 90`,
		`sallyport_staple_age_seconds{name="a.example",serial="1f"} 60`,
		`sallyport_staple_left_seconds{name="a.example",serial="1f"} -1`,
		`sallyport_staple_left_seconds{name="odd?",serial="2"} 0`,
		"\ngo_goroutines ", "\nprocess_open_fds ", "\nprocess_resident_memory_bytes ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// Who looks at a flow reads what its stage says that nobody writes any more; the
// race detector would say where not. No sum falls when a flow ends.
func TestLookWhileFlowsLive(t *testing.T) {
	m := NewMetrics("v1", start)
	var flows sync.WaitGroup
	for id := range uint64(8) {
		flows.Go(func() {
			for round := range uint64(200) {
				f := &flow.Flow{ID: id + 8*round, Start: time.Now(), Origin: flow.Origin{Listener: "l"}, Progress: new(flow.Progress)}
				m.Begin(f)
				f.Progress.Reach(flow.StagePeek)
				f.Hello = &wire.Hello{SNI: "a.example"}
				f.Progress.Reach(flow.StageDecide)
				f.Decision = &flow.Decision{Route: "r", Pattern: "bridge"}
				f.Progress.Reach(flow.StageDial)
				f.Dialled.Addr = "s"
				f.Progress.Reach(flow.StageInbound)
				f.Inbound = append(f.Inbound, flow.Session{Version: 0x0304})
				f.Progress.Reach(flow.StageRelay)
				f.Progress.Moved(flow.Up, 10)
				f.Sent[flow.Up] = f.Progress.Bytes(flow.Up)
				m.End(f, nil)
			}
		})
	}
	over := make(chan struct{})
	go func() { flows.Wait(); close(over) }()
	var before int64
	for done := false; !done; {
		select {
		case <-over:
			done = true
		default:
		}
		list, _ := m.Alive(100)
		for _, a := range list {
			if a.Stage == "relay" && (a.SNI != "a.example" || a.Route != "r" || a.Server != "s" || a.Version != "TLS 1.3") {
				t.Errorf("%+v", a)
			}
		}
		now := m.total().bytes[bytesKey{"l", "r"}][flow.Up]
		if now < before {
			t.Fatalf("bytes fell from %d to %d", before, now)
		}
		before = now
	}
	if before != 8*200*10 {
		t.Errorf("%d bytes", before)
	}
}

// What counting costs a flow, beside its record in the log.
func BenchmarkFlow(b *testing.B) {
	records := &Records{Log: NewLogger(NewQueue(io.Discard, "json"), "json", slog.LevelInfo)}
	m := NewMetrics("v1", start)
	for name, o := range map[string]flow.Observer{"record": records, "metrics": m, "both": Observers{m, records}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			f := ended(0)
			for b.Loop() {
				f.ID++
				o.Begin(f)
				o.End(f, nil)
			}
		})
	}
}
