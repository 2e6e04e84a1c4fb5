// Package record is the record layer of TLS 1.3 (RFC 8446, section 5), after
// the handshake: a [Conn] carries on a connection whose traffic secrets somebody
// else has agreed on. crypto/tls keeps a buffer per idle connection and copies
// each byte twice; a Conn keeps two secrets and two counters, and opens records
// straight into the buffer of whoever reads.
//
//	half   one direction: its secret, its counter; open, seal, the next secret
//	Conn   read.go gathers records into units, message.go hears what is no data,
//	       write.go seals and sends
package record
