// Package testdns runs a small DNS of its own on loopback for tests: a signed root,
// zones below it that are signed well, badly or not at all (bind9 signs and serves,
// nsd serves one that ldns has signed), and a validating resolver (unbound).
//
//	d := testdns.Start(t, testdns.Records{"example.test": "svc A 127.0.0.1\n_443._tcp.svc TLSA " + rec})
//	resolver: d.Resolver, trust anchor: d.Anchor
package testdns
