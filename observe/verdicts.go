package observe

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sallyport/flow"
)

// Ages are those of what others have signed and we go by, at one moment.
type Ages struct {
	LogLists *time.Duration // of the oldest list of CT logs; nil where there is none
	Staples  []Staple
}

// Staple is one of our own certificates that an answer is to be stapled to.
type Staple struct {
	Name   string // the first that it is for
	Serial string // tells apart those of one name
	Held   bool   // there is an answer; what follows is of it
	Age    time.Duration
	Left   time.Duration // until its nextUpdate; negative past that
}

var (
	descRefusals   = desc("verify_failures_total", "Certificates refused, by whom and why.", "side", "verifier", "reason")
	descListAge    = desc("ct_log_list_age_seconds", "Age of the oldest list of CT logs that is in force.")
	descStapleAge  = desc("staple_age_seconds", "Since thisUpdate of the answer stapled to a certificate of ours.", "name", "serial")
	descStapleLeft = desc("staple_left_seconds", "Until nextUpdate of the answer stapled to a certificate of ours; 0 where there is none.", "name", "serial")
	descHeld       = desc("certificates_held", "New certificates of ours that wait for their TLSA records.")
)

// verdictTimes are how long verifying took, whatever came of it.
type verdictTimes struct {
	seconds           *prometheus.HistogramVec
	inbound, outbound prometheus.Observer
}

func newVerdictTimes() verdictTimes {
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sallyport_verify_seconds", Help: "How long verifying the other end's certificate took in one handshake.",
		Buckets: []float64{0.00001, 0.0001, 0.001, 0.01, 0.1, 1, 10},
	}, []string{"side"})
	return verdictTimes{v, v.WithLabelValues(sideInbound), v.WithLabelValues(sideOutbound)}
}

func (v *verdictTimes) observe(f *flow.Flow, e *flow.Error) {
	for i := range f.Inbound {
		took(v.inbound, f.Inbound[i].Verified)
	}
	for i := range f.Outbound {
		took(v.outbound, f.Outbound[i].Verified)
	}
	if e == nil || e.Refusal == nil {
		return
	}
	if e.Refusal.Inbound {
		took(v.inbound, e.Refusal.Took)
	} else {
		took(v.outbound, e.Refusal.Took)
	}
}

func took(by prometheus.Observer, d time.Duration) {
	if d > 0 {
		by.Observe(d.Seconds())
	}
}

func sideOf(r *flow.Refusal) string {
	if r.Inbound {
		return sideInbound
	}
	return sideOutbound
}

func (a *Ages) collect(gauge func(*prometheus.Desc, float64, ...string)) {
	if a.LogLists != nil {
		gauge(descListAge, a.LogLists.Seconds())
	}
	seen := map[string]bool{}
	for _, s := range a.Staples {
		name, serial := strings.ToValidUTF8(s.Name, "?"), strings.ToValidUTF8(s.Serial, "?")
		key := fmt.Sprintf("%q %q", name, serial)
		if seen[key] {
			continue
		}
		seen[key] = true
		if s.Held {
			gauge(descStapleAge, s.Age.Seconds(), name, serial)
		}
		gauge(descStapleLeft, s.Left.Seconds(), name, serial)
	}
}
