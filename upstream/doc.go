// Package upstream chooses among the servers of a route and knows how they are.
//
// A [Pool] is the [flow.Dialer] of a route: it picks a server, dials it, and tries
// another one while nothing has been sent. It is the [flow.Layer] towards the
// server too, since each server may have one of its own. A [Server] is what is
// known of one address, whichever routes name it: it counts its flows, and is up
// or down by checks and by the connections that fail. A [Set] holds those of one
// program, and hands them on to the next.
package upstream
