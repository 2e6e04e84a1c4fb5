package transport

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	batchSize = 32
	packetMax = 64 << 10
	oobMax    = 64
)

// batch reads up to 32 datagrams in one system call. Its 2 MiB are touched only
// as far as the largest datagram of each place.
type batch struct {
	conn *ipv4.PacketConn // whose ReadBatch is for sockets of either family
	want int              // places that the next read offers
	msgs [batchSize]ipv4.Message
}

func newBatch(c *net.UDPConn) *batch {
	b := &batch{conn: ipv4.NewPacketConn(c), want: 1}
	data, oobs := make([]byte, batchSize*packetMax), make([]byte, batchSize*oobMax)
	for i := range b.msgs {
		b.msgs[i].Buffers = [][]byte{data[i*packetMax:][:packetMax:packetMax]}
		b.msgs[i].OOB = oobs[i*oobMax:][:oobMax:oobMax]
	}
	return b
}

// read waits for datagrams, and gives how many came. It offers twice the places that
// the last one filled: each is prepared anew, and 32 of them take a microsecond.
func (b *batch) read() (n int, err error, closed bool) {
	for {
		// Beyond the first, none is waited for, should another process that shares the
		// socket have set it so.
		n, err = b.conn.ReadBatch(b.msgs[:b.want], unix.MSG_WAITFORONE)
		switch {
		case err == nil:
			b.want = min(2*n, batchSize)
			return n, nil, false
		case errors.Is(err, unix.EINTR):
			continue
		}
		// A deadline ends the reading, too: another process has the socket now.
		return 0, err, errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
	}
}

func (b *batch) payload(i int) []byte {
	m := &b.msgs[i]
	return m.Buffers[0][:m.N]
}

// from is the sender, with IPv4 as such. The zone of a link-local one is the number of
// the interface by which it came, where Addr has a name, which may change.
func (b *batch) from(i int) netip.AddrPort {
	u := b.msgs[i].Addr.(*net.UDPAddr)
	a, _ := netip.AddrFromSlice(u.IP)
	a = a.Unmap()
	if u.Zone != "" && a.IsLinkLocalUnicast() {
		if _, by := pktinfo(b.msgs[i].OOB[:b.msgs[i].NN]); by != 0 {
			a = a.WithZone(strconv.FormatUint(uint64(by), 10))
		}
	}
	return netip.AddrPortFrom(a, uint16(u.Port))
}

// to is the address that the sender asked for; the zero Addr if the kernel did not
// say.
func (b *batch) to(i int) netip.Addr {
	a, _ := pktinfo(b.msgs[i].OOB[:b.msgs[i].NN])
	return a
}

// pktinfo reads in_pktinfo or in6_pktinfo, which is the only thing that the kernel was
// asked to say: to which address a datagram came, and over IPv6 by which interface.
func pktinfo(oob []byte) (to netip.Addr, by uint32) {
	if len(oob) < unix.SizeofCmsghdr { // what follows takes it for granted
		return to, 0
	}
	h, data, _, err := unix.ParseOneSocketControlMessage(oob)
	switch {
	case err != nil:
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		return netip.AddrFrom4([4]byte(data[4:])), 0 // ipi_spec_dst
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		return netip.AddrFrom16([16]byte(data)).Unmap(), binary.NativeEndian.Uint32(data[16:])
	}
	return netip.Addr{}, 0
}

// answerFrom is the control message that has a datagram leave from local.
func answerFrom(local netip.Addr, inet6 bool) []byte {
	switch {
	case !local.IsValid():
		return nil
	case inet6:
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: local.As16()})
	}
	return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: local.As4()})
}
