package transport

import (
	"net"
	"os"
	"strconv"
)

// Where is one place to listen at or to dial: Host and Port, or else one of the
// others.
type Where struct {
	Host    string // empty: all addresses, both families; Listen only
	Port    uint16 // 0: any free one; Listen only
	Unix    string // path of a unix socket; a leading @ is the abstract namespace
	Systemd string // name of a socket that systemd hands over; Listen only

	File *os.File // the socket itself, bound for this place by another process; Listen only
}

func (w Where) String() string {
	switch {
	case w.Systemd != "":
		return "systemd:" + w.Systemd
	case w.Unix != "":
		return "unix:" + w.Unix
	default:
		return net.JoinHostPort(w.Host, strconv.Itoa(int(w.Port)))
	}
}
