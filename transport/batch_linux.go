package transport

import (
	"net/netip"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batchSize = 32
	packetMax = 64 << 10
	oobMax    = 64
)

// mmsghdr is recvmmsg(2)'s.
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

// batch reads up to 32 datagrams in one system call. Its 2 MiB are touched only
// as far as the largest datagram of each place.
type batch struct {
	raw   syscall.RawConn
	step  func(fd uintptr) bool
	n     int
	err   error
	msgs  [batchSize]mmsghdr
	iovs  [batchSize]unix.Iovec
	names [batchSize]unix.RawSockaddrInet6
	oobs  [batchSize][oobMax / 8]uint64 // aligned for a header
	data  []byte
}

func newBatch(raw syscall.RawConn) *batch {
	b := &batch{raw: raw, data: make([]byte, batchSize*packetMax)}
	b.step = b.try
	for i := range b.msgs {
		b.iovs[i].Base = &b.data[i*packetMax]
		b.iovs[i].SetLen(packetMax)
		b.msgs[i].Name = (*byte)(unsafe.Pointer(&b.names[i]))
		b.msgs[i].Iov = &b.iovs[i]
		b.msgs[i].SetIovlen(1)
		b.msgs[i].Control = (*byte)(unsafe.Pointer(&b.oobs[i]))
		b.reset(i) // read resets only those that the kernel wrote to
	}
	return b
}

// read waits for datagrams, and gives how many came. An error of raw itself means
// that the socket is closed.
func (b *batch) read() (n int, err error, closed bool) {
	for i := range max(b.n, 1) {
		b.reset(i)
	}
	b.n, b.err = 0, nil
	if err := b.raw.Read(b.step); err != nil {
		return 0, err, true
	}
	return b.n, b.err, false
}

func (b *batch) reset(i int) {
	b.msgs[i].Namelen = unix.SizeofSockaddrInet6
	b.msgs[i].SetControllen(oobMax)
}

func (b *batch) try(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.msgs)), batchSize, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			b.n = int(n)
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		default:
			b.err = errno
		}
		return true
	}
}

func (b *batch) payload(i int) []byte {
	return b.data[i*packetMax:][:b.msgs[i].n]
}

// from is the sender, with IPv4 as such.
func (b *batch) from(i int) netip.AddrPort {
	name := &b.names[i]
	if name.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(four.Addr), bigEndian(four.Port))
	}
	a := netip.AddrFrom16(name.Addr).Unmap()
	if a.IsLinkLocalUnicast() && name.Scope_id != 0 {
		a = a.WithZone(strconv.Itoa(int(name.Scope_id)))
	}
	return netip.AddrPortFrom(a, bigEndian(name.Port))
}

func bigEndian(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}

// to is the address that the sender asked for; the zero Addr if the kernel did not
// say. IP_PKTINFO is the only thing that was asked of it.
func (b *batch) to(i int) netip.Addr {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b.oobs[i]))
	data := unsafe.Pointer(&b.oobs[i][unix.SizeofCmsghdr/8])
	length := int(b.msgs[i].Controllen)
	switch {
	case length >= unix.CmsgLen(unix.SizeofInet4Pktinfo) && h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO:
		return netip.AddrFrom4((*unix.Inet4Pktinfo)(data).Spec_dst)
	case length >= unix.CmsgLen(unix.SizeofInet6Pktinfo) && h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO:
		return netip.AddrFrom16((*unix.Inet6Pktinfo)(data).Addr).Unmap()
	}
	return netip.Addr{}
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

// recvWhole is recv(2) that gives the length of the whole datagram, also where p
// is too short for it.
func recvWhole(fd int, p []byte) (int, error) {
	var none byte
	at := unsafe.Pointer(&none)
	if len(p) > 0 {
		at = unsafe.Pointer(&p[0])
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(at), uintptr(len(p)), unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
