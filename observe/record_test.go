package observe

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

func hostile() *flow.Flow {
	evil := "a\nlevel=ERROR msg=forged \x1b[31m\"\x00" + strings.Repeat("x", 5000)
	return &flow.Flow{
		ID: 7, Start: time.Now(),
		Origin:   flow.Origin{Listener: "l", Client: netip.MustParseAddrPort("192.0.2.1:99")},
		Decision: &flow.Decision{Route: "l/1", Pattern: "offload"},
		Hello:    &wire.Hello{Version: 0x0303, SNI: evil, ALPN: []string{evil, evil}},
		Inbound:  []flow.Session{{Proto: "tls", Version: 0x0304, ALPN: evil, Peer: &flow.Peer{Names: []string{evil}, CTLogs: []string{evil, evil}}}},
	}
}

// What a stranger sends neither makes a line of its own nor fills the log.
func TestRecordsHoldStrangersStrings(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		r := &Records{Log: NewLogger(&out, format, slog.LevelInfo)}
		r.End(hostile(), flow.Fail(flow.HelloMalformed, "it said %s", strings.Repeat("\n\x1b[2J", 9000)))
		line, rest, _ := bytes.Cut(out.Bytes(), []byte("\n"))
		if len(rest) != 0 || bytes.ContainsAny(line, "\x1b\x00\n") {
			t.Errorf("%s: a stranger's bytes stand in the log: %q", format, out.Bytes())
		}
		if len(line) > 12_000 {
			t.Errorf("%s: a record of %d bytes", format, len(line))
		}
		if format == "json" {
			var got map[string]any
			if err := json.Unmarshal(line, &got); err != nil || got["reason"] != "hello_malformed" || got["fault"] != "client" || got["id"] != 7.0 {
				t.Errorf("%v, %v", got, err)
			}
		}
	}
}

// The level says whose business it is; a client's fault is not the operator's.
func TestLevels(t *testing.T) {
	for reason, level := range map[flow.Reason]string{
		flow.OK: "INFO", flow.ClientTruncated: "INFO", flow.IdleTimeout: "INFO",
		flow.DialRefused: "WARN", flow.CertExpired: "WARN", flow.Internal: "ERROR", flow.Panic: "ERROR",
	} {
		var out bytes.Buffer
		r := &Records{Log: NewLogger(&out, "text", slog.LevelInfo)}
		var e *flow.Error
		if reason != flow.OK {
			e = flow.Fail(reason, "because")
		}
		f := &flow.Flow{Start: time.Now()}
		r.Begin(f)
		r.End(f, e)
		if got := out.String(); !strings.Contains(got, "level="+level) || !strings.Contains(got, "reason="+string(reason)) || !strings.Contains(got, "client=unix") {
			t.Errorf("%s: %s", reason, got)
		}
	}
}

// A panic's stack is ours, and stands whole.
func TestPanicKeepsItsStack(t *testing.T) {
	var out bytes.Buffer
	r := &Records{Log: NewLogger(&out, "text", slog.LevelInfo)}
	r.End(&flow.Flow{Start: time.Now()}, flow.Fail(flow.Panic, "panic: odd\n%s END", strings.Repeat("frame ", 2000)))
	if !strings.Contains(out.String(), "END") {
		t.Error("the stack was cut")
	}
}
