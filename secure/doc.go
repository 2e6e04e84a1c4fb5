// Package secure is TLS as a layer, in both roles. It is the only room that
// holds a *tls.Config, and it never hands one out.
//
// [NewServer] and [NewClient] take the same parameters and read as a pair. A
// layer is built once a route; what a connection adds is its closure over the
// flow. Who the other end is, is said only after the handshake has returned,
// and only from a [verify.Identity].
package secure
