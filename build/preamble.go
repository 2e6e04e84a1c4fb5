package build

import (
	"sallyport/config"
	"sallyport/flow"
	"sallyport/preamble"
)

// precede has l take PROXY headers off what clients send.
func (l *Listener) precede(c *config.Listener) {
	if c.ProxyProtocol == config.ProxyOff {
		return
	}
	accept := preamble.AcceptProxy{Trust: c.ProxyTrust, Require: c.ProxyProtocol == config.ProxyRequire, Each: c.ProxyProtocol == config.ProxyEach, Timeout: c.Peek}
	if c.From.Datagram() {
		l.Header = accept.Datagram
	} else {
		l.Preamble = []flow.Layer{accept}
	}
}

// announced is what the server is told of the client, ahead of everything else.
func announced(l *config.Listener, c *config.Route) []flow.Layer {
	send := preamble.SendProxy{Version: 2, Timeout: c.Timeouts.Handshake}
	switch c.To.ProxyProtocol {
	case config.ProxyNone:
		return nil
	case config.ProxyV1:
		send.Version = 1
	case config.ProxyV2Each:
		send.Ahead = preamble.AheadOfEach
	case config.ProxyV2:
		if c.To.Addr.Secure() || c.Action == config.Splice && l.From.Secure() {
			send.Ahead = preamble.AheadOfHellos
		}
	}
	return []flow.Layer{send}
}
