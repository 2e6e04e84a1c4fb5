package observe

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/flow"
	"sallyport/wire"
)

// Metrics are the tallies of the process for Prometheus. doc/operating.md lists them.
type Metrics struct {
	*Tally
	Datagrams func() []Datagrams // what listeners of datagrams have counted; may be nil
	Lost      func() uint64      // lines that the log has lost; may be nil
	Ages      func() Ages        // may be nil
	Held      func() int         // certificates that wait for DNS; may be nil
	Servers   func() []Servers   // may be nil

	registry *prometheus.Registry
	mu       sync.Mutex
	certs    []Certificate
	limits   map[limitKey]uint64
	good     atomic.Uint64
	failed   atomic.Uint64
	loaded   atomic.Int64 // when what runs was read, in seconds of Unix
}

// Datagrams is one count of a listener.
type Datagrams struct {
	Listener, Event string
	N               uint64
}

// Servers are those of one route that are in one state. Their addresses are no labels:
// of a name they are whatever DNS says.
type Servers struct {
	Route, State string
	N            int
}

// Certificate is one of ours that is in use.
type Certificate struct {
	File     string // where it was read from
	Name     string // the first that it is for
	NotAfter time.Time
}

// NewMetrics counts from nothing, for the program of that version.
func NewMetrics(version string, now time.Time) *Metrics {
	m := &Metrics{Tally: NewTally(), registry: prometheus.NewRegistry(), limits: map[limitKey]uint64{}}
	m.loaded.Store(now.Unix())
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sallyport_build_info", Help: "1; its label says which version runs.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, m.stages.seconds, m.stages.whole, m.verdicts.seconds, collector{m},
	)
	return m
}

// Handler writes the metrics, of which few may be asked for at once.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 4, Timeout: 10 * time.Second, ErrorHandling: promhttp.ContinueOnError,
	})
}

// Reloaded counts a reload; a nil err was a good one.
func (m *Metrics) Reloaded(now time.Time, err error) {
	if err != nil {
		m.failed.Add(1)
		return
	}
	m.good.Add(1)
	m.loaded.Store(now.Unix())
}

// Reloads says how many there were.
func (m *Metrics) Reloads() (good, failed uint64) { return m.good.Load(), m.failed.Load() }

// Loaded is when what runs was read.
func (m *Metrics) Loaded() time.Time { return time.Unix(m.loaded.Load(), 0) }

// Limit counts that a bound has kept a connection out, or has it wait.
func (m *Metrics) Limit(listener, name string) {
	m.mu.Lock()
	m.limits[limitKey{listener, name}]++
	m.mu.Unlock()
}

type limitKey struct{ listener, name string }

// SetCertificates says which are in use from now on.
func (m *Metrics) SetCertificates(list []Certificate) {
	m.mu.Lock()
	m.certs = list
	m.mu.Unlock()
}

// Certificates are those in use.
func (m *Metrics) Certificates() []Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.certs
}

// stageTimes are how long stages took.
type stageTimes struct {
	seconds                       *prometheus.HistogramVec
	whole                         prometheus.Histogram
	peek, inbound, dial, outbound prometheus.Observer
}

func newStageTimes() stageTimes {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sallyport_stage_seconds", Help: "How long a stage took that was passed: peek, inbound and outbound (handshakes), dial.",
		Buckets: []float64{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
	}, []string{"stage"})
	return stageTimes{
		seconds: v,
		whole: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sallyport_flow_seconds", Help: "How long a flow lived.", Buckets: []float64{0.01, 0.1, 1, 10, 60, 600, 3600, 86400},
		}),
		peek:     v.WithLabelValues(flow.StagePeek.String()),
		inbound:  v.WithLabelValues(flow.StageInbound.String()),
		dial:     v.WithLabelValues(flow.StageDial.String()),
		outbound: v.WithLabelValues(flow.StageOutbound.String()),
	}
}

func (s *stageTimes) observe(f *flow.Flow) {
	s.whole.Observe(time.Since(f.Start).Seconds())
	if f.Peeked > 0 {
		s.peek.Observe(f.Peeked.Seconds())
	}
	if f.Dialled.Took > 0 {
		s.dial.Observe(f.Dialled.Took.Seconds())
	}
	for i := range f.Inbound {
		s.inbound.Observe(f.Inbound[i].Took.Seconds())
	}
	for i := range f.Outbound {
		s.outbound.Observe(f.Outbound[i].Took.Seconds())
	}
}

// collector gives what is summed only when it is asked for.
type collector struct{ m *Metrics }

var (
	descFlows      = desc("flows_total", "Flows that have ended, by the reason of doc/log.md.", "listener", "route", "reason")
	descOpen       = desc("flows_open", "Flows now alive.", "listener")
	descBytes      = desc("bytes_total", "Payload bytes passed, from the client (up) and to it (down), of open flows too.", "listener", "route", "direction")
	descHandshakes = desc("handshakes_total", "Handshakes of flows that have ended, with clients (inbound) and servers (outbound).", "side", "version", "group", "resumed")
	descAlerts     = desc("alerts_total", "TLS alerts that flows ended by, as far as they are known.", "side", "direction", "alert")
	descReloads    = desc("reloads_total", "Reloads, good and failed.", "result")
	descLoaded     = desc("config_loaded_timestamp_seconds", "When what runs was read.")
	descExpiry     = desc("certificate_expiry_timestamp_seconds", "When a certificate of ours expires.", "file", "name")
	descLimits     = desc("limit_hits_total", "Connections that a limit has kept out, or has wait.", "listener", "limit")
	descDatagrams  = desc("datagrams_total", "What listeners of datagrams have counted; doc/log.md says what is a drop.", "listener", "event")
	descServers    = desc("servers", "Servers of a route, by their state: up, down, or drained.", "route", "state")
	descLost       = desc("log_lines_lost_total", "Lines that the log has lost, since nobody took them.")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sallyport_"+name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descFlows, descOpen, descBytes, descHandshakes, descAlerts, descReloads, descLoaded, descExpiry, descLimits, descDatagrams, descLost,
		descRefusals, descListAge, descStapleAge, descStapleLeft, descHeld, descServers,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(to chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n, labels...)
	}
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	all := c.m.total()
	for k, n := range all.flows {
		counter(descFlows, float64(n), k.listener, k.route, string(k.reason))
	}
	for listener, n := range all.open {
		gauge(descOpen, float64(n), listener)
	}
	for k, n := range all.bytes {
		counter(descBytes, float64(n[flow.Up]), k.listener, k.route, "up")
		counter(descBytes, float64(n[flow.Down]), k.listener, k.route, "down")
	}
	for k, n := range all.handshakes {
		counter(descHandshakes, float64(n), k.side, wire.VersionName(k.version), groupName(k.group), strconv.FormatBool(k.resumed))
	}
	for k, n := range all.alerts {
		direction := "received"
		if k.sent {
			direction = "sent"
		}
		counter(descAlerts, float64(n), k.side, direction, alertName(k.code))
	}
	for k, n := range all.refusals {
		counter(descRefusals, float64(n), k.side, k.verifier, k.reason)
	}
	if c.m.Ages != nil {
		ages := c.m.Ages()
		ages.collect(gauge)
	}
	if c.m.Held != nil {
		gauge(descHeld, float64(c.m.Held()))
	}
	if c.m.Servers != nil {
		for _, s := range c.m.Servers() {
			gauge(descServers, float64(s.N), s.Route, s.State)
		}
	}
	good, failed := c.m.Reloads()
	counter(descReloads, float64(good), "good")
	counter(descReloads, float64(failed), "failed")
	gauge(descLoaded, float64(c.m.loaded.Load()))
	c.rest(counter, gauge)
}

// alertName is the RFC's; a peer that makes up numbers makes no series by it.
func alertName(code uint8) string {
	if name := wire.Alert(code).String(); !strings.HasPrefix(name, "alert(") {
		return name
	}
	return "unknown"
}

func (c collector) rest(counter, gauge func(*prometheus.Desc, float64, ...string)) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	seen := map[Certificate]bool{}
	for _, cert := range c.m.certs {
		key := Certificate{File: cert.File, Name: cert.Name}
		if !seen[key] { // of several in one file, for the same name, the list has the one that expires first
			seen[key] = true
			gauge(descExpiry, float64(cert.NotAfter.Unix()), strings.ToValidUTF8(cert.File, "?"), strings.ToValidUTF8(cert.Name, "?"))
		}
	}
	for k, n := range c.m.limits {
		counter(descLimits, float64(n), k.listener, k.name)
	}
	if c.m.Datagrams != nil {
		for _, d := range c.m.Datagrams() {
			counter(descDatagrams, float64(d.N), d.Listener, d.Event)
		}
	}
	if c.m.Lost != nil {
		counter(descLost, float64(c.m.Lost()))
	}
}
