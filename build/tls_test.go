package build

import (
	"testing"

	"sallyport/config"
)

// What the switches of tls say reaches the layers.
func TestSwitches(t *testing.T) {
	for _, on := range []config.Switch{false, true} {
		p, err := tlsParams(config.TLS{Preset: "modern", Tickets: on, Record: !on})
		if err != nil || p.Tickets != bool(on) || p.Record != !bool(on) {
			t.Errorf("%t: %+v, %v", on, p.Params, err)
		}
	}
}
