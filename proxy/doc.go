// Package proxy is the engine: it listens, serves one flow after the other,
// peeks, relays and drains. It knows neither patterns nor TLS; a
// [flow.Decision] says which layers stand at each end of a flow.
//
// serve in serve.go is the picture of one connection from accept to close.
package proxy
