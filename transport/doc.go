// Package transport opens and accepts plain sockets: TCP and unix streams,
// datagrams, sockets handed over by systemd, and the dial towards a server.
//
// [Listen] gives a [flow.Acceptor] whose flows have their start and their origin
// filled, and [Dialer] is a [flow.Dialer]. The connections of both hold no buffer
// while they wait ([flow.UnitReader]), can be reset ([flow.Aborter]), and give
// their socket for splice(2) ([flow.Bare]) where they are TCP.
//
// [ListenPackets] makes flows of the datagrams that come to one address, the first
// of which for DTLS is a ClientHello that has proved where it comes from. Its
// readers wait for nobody, and all that a stranger can have it hold is bounded
// ([PacketLimits]); what is too much is dropped and counted ([PacketCounters]).
//
// TCP connections notice a peer that has vanished within two minutes, whether or
// not bytes are under way. The permissions of a unix socket follow the umask, as
// with any program; let the folder that holds it say who may connect.
//
// Nothing here knows what is spoken over a socket, but for the records in clear
// that tell one DTLS association from another, nor ends a flow but for one whose
// client has begun anew.
package transport
