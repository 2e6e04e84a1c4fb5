// Package route is the table from a flow to its [flow.Decision]: the first route
// whose criteria all hold wins, and where none does the flow is refused.
//
// It is pure: no I/O, no clock, and nothing is made for a flow but what an If asks
// for. What a route does is in its Decision and not known here.
//
// Clients on a unix socket have no address: no list of addresses holds for them,
// in [Match.Client] or in [Route.From].
package route
