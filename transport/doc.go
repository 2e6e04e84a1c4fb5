// Package transport opens and accepts plain sockets: TCP and unix streams,
// sockets handed over by systemd, and the dial towards a server.
//
// [Listen] gives a [flow.Acceptor] whose flows have their start and their origin
// filled, and [Dialer] is a [flow.Dialer]. The connections of both hold no buffer
// while they wait ([flow.UnitReader]), can be reset ([flow.Aborter]), and give
// their socket for splice(2) ([flow.Bare]) where they are TCP.
//
// TCP connections notice a peer that has vanished within two minutes, whether or
// not bytes are under way. The permissions of a unix socket follow the umask, as
// with any program; let the folder that holds it say who may connect.
//
// Nothing here knows what is spoken over a socket, nor ends a flow.
package transport
