// Package preamble has what precedes a connection's payload, as layers in both
// roles: [AcceptProxy] takes a PROXY header off what a client sends, and [SendProxy]
// tells a server by one who the client is (haproxy.org/download/3.0/doc/proxy-protocol.txt).
// Of datagrams, which the acceptor takes apart, [AcceptProxy.Datagram] takes it off.
package preamble
