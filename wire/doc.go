// Package wire holds the pure codecs of what strangers send: TLS and DTLS
// records and alerts, and the ClientHello with its fingerprints.
//
// Nothing here does I/O or keeps a clock. A parser takes bytes and has three
// answers: a value, "not this protocol" ([ErrNotTLS] or a [*MalformedError]),
// and "more" ([ErrMore]). It never panics and never holds more than its stated
// bound.
package wire
