package observe

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// Records is the [flow.Observer] that writes one record at each flow's end.
type Records struct {
	Log *slog.Logger

	dropped atomic.Uint64 // of each 2^64 flows that ended well, how many go without a record
}

// Sample has the share of flows that ended well have a record, from none at 0 to all
// at 1. Those that failed, or were ended by a limit, have one always.
func (r *Records) Sample(share float64) {
	r.dropped.Store(uint64(min(max(1-share, 0), 1) * (1<<64 - 1<<11))) // the largest below 2^64 that a float64 is
}

// spread makes numbers that follow each other lie evenly over all that there are
// (Knuth, The Art of Computer Programming, volume 3, section 6.4).
const spread = 0x9e3779b97f4a7c15

func (r *Records) sampled(f *flow.Flow) bool { return f.ID*spread >= r.dropped.Load() }

// Begin implements [flow.Observer].
func (r *Records) Begin(f *flow.Flow) {
	if r.Log.Enabled(context.Background(), slog.LevelDebug) {
		r.Log.Debug("accepted", "id", f.ID, "listener", f.Origin.Listener, "client", clientName(f))
	}
}

// End implements [flow.Observer]. A client's fault is no warning: strangers
// must not be able to fill a log with them.
func (r *Records) End(f *flow.Flow, e *flow.Error) {
	level := slog.LevelInfo
	switch {
	case e == nil:
		if !r.sampled(f) {
			return
		}
	case e.Fault == flow.FaultServer:
		level = slog.LevelWarn
	case e.Fault == flow.FaultOurs:
		level = slog.LevelError
	}
	ctx := context.Background()
	if r.Log.Enabled(ctx, level) {
		r.Log.LogAttrs(ctx, level, "flow", record(f, e)...)
	}
}

// longest is the most of one string from outside that a record holds, in bytes.
const longest = 256

func record(f *flow.Flow, e *flow.Error) []slog.Attr {
	a := attrs{list: make([]slog.Attr, 0, 40)}
	a.add(slog.Uint64("id", f.ID))
	a.text("listener", f.Origin.Listener)
	if d := f.Decision; d != nil {
		a.text("route", d.Route)
		a.text("pattern", d.Pattern)
	}
	a.text("client", clientName(f))
	if f.Asked.Client.IsValid() {
		via := "unix"
		if f.Origin.Client.IsValid() {
			via = f.Origin.Client.String()
		}
		a.text("via", via)
	}
	if f.Dialled.Addr != "" {
		a.text("server", f.Dialled.Addr)
	}
	if h := f.Hello; h != nil {
		a.text("sni", h.SNI)
		if len(h.ALPN) > 0 {
			a.text("alpn_offered", strings.Join(h.ALPN, ","))
		}
		a.text("ja3", f.Print.JA3)
		a.text("ja4", f.Print.JA4)
	}
	for _, s := range f.Inbound {
		a.session("in", s)
	}
	for _, s := range f.Outbound {
		a.session("out", s)
	}
	a.add(slog.Int64("up", f.Sent[flow.Up]), slog.Int64("down", f.Sent[flow.Down]))
	for d, key := range [...]string{flow.Up: "up_too_large", flow.Down: "down_too_large"} {
		if n := f.TooLarge[d]; n > 0 {
			a.add(slog.Int64(key, n))
		}
	}
	for d, key := range [...]string{flow.Up: "in_discarded", flow.Down: "out_discarded"} {
		if n := f.Discards[d]; n > 0 {
			a.add(slog.Int64(key, n))
		}
	}
	if f.Peeked > 0 {
		a.took("peek_ms", f.Peeked)
	}
	if f.Dialled.Took > 0 {
		a.took("dial_ms", f.Dialled.Took)
	}
	a.took("ms", time.Since(f.Start))
	if e == nil {
		a.text("reason", string(flow.OK))
		return a.list
	}
	a.text("stage", e.Stage.String())
	a.text("reason", string(e.Reason))
	a.text("fault", e.Fault.String())
	if r := e.Refusal; r != nil {
		a.text("verifier", r.Verifier)
		a.text("verdict", r.Reason)
		if r.Took > 0 {
			side := "out"
			if r.Inbound {
				side = "in"
			}
			a.took(side+"_verify_ms", r.Took)
		}
	}
	text := e.Error()
	if e.Reason != flow.Panic { // whose stack is ours, and wanted whole
		text = cut(text, 4*longest)
	}
	a.add(slog.String("err", text))
	return a.list
}

func clientName(f *flow.Flow) string {
	return addrName(f.Client())
}

func addrName(a netip.AddrPort) string {
	if a.IsValid() {
		return a.String()
	}
	return "unix"
}

type attrs struct{ list []slog.Attr }

func (a *attrs) add(more ...slog.Attr) { a.list = append(a.list, more...) }

func (a *attrs) text(key, s string) { a.add(slog.String(key, cut(s, longest))) }

func (a *attrs) took(key string, d time.Duration) {
	a.add(slog.Float64(key, float64(d.Microseconds())/1000))
}

func (a *attrs) session(side string, s flow.Session) {
	a.text(side+"_version", wire.VersionName(s.Version))
	a.text(side+"_cipher", SuiteName(s.Suite))
	if s.Group != 0 {
		a.text(side+"_group", tls.CurveID(s.Group).String())
	}
	if s.ALPN != "" {
		a.text(side+"_alpn", s.ALPN)
	}
	if s.PSK != "" {
		a.text(side+"_psk", s.PSK)
	}
	a.add(slog.Bool(side+"_resumed", s.Resumed))
	if s.ECH {
		a.add(slog.Bool(side+"_ech", true))
	}
	if p := s.Peer; p != nil {
		a.text(side+"_peer", strings.Join(p.Names, ","))
		a.text(side+"_peer_by", strings.Join(p.By, ","))
		if len(p.Notes) > 0 {
			a.text(side+"_notes", strings.Join(p.Notes, "; "))
		}
		if p.StapleAge != nil {
			a.add(slog.Int64(side+"_staple_age", int64(p.StapleAge.Seconds())))
		}
		if len(p.CTLogs) > 0 {
			a.text(side+"_ct_logs", strings.Join(p.CTLogs, "; "))
		}
	}
	a.took(side+"_ms", s.Took)
	if s.Verified > 0 {
		a.took(side+"_verify_ms", s.Verified)
	}
}

// cut bounds s to n bytes, and says how much is missing.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes more)", strings.ToValidUTF8(s[:n], ""), len(s)-n)
}
