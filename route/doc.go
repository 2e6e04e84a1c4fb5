// Package route is the table from a flow to its [flow.Decision]: the first route
// whose criteria all hold wins, and where none does the flow is refused.
//
// It is pure: no I/O, no clock, and nothing is made for a flow. What a route
// does is in its Decision and not known here.
//
// Clients on a unix socket have no address. They are local, and whoever may open
// the socket is settled by its mode: they are within every [Route.From], but a
// criterion on the client's address does not hold for them.
package route
