// Package ct says whether a certificate was made public: it finds the signed
// certificate timestamps (SCTs) that came with it, verifies them against the
// logs of a list, and judges them by Chrome's policy of 2026.
//
//	list, err := ct.ParseList(json)
//	logs := new(ct.Logs)
//	logs.Set(list)
//	verdict := logs.Judge(&ct.Evidence{Leaf: leaf, Issuers: issuers}, now)
//
// SCTs are those of version 1 (RFC 6962), which logs with tiles give as well
// (static-ct-api, c2sp.org). What a server sends is a stranger's: every count
// and length has a bound here, and a fuzz target stands behind every parser.
// Nothing here reads a clock or opens a socket; whoever fetches a list brings
// the client to do so with.
package ct
