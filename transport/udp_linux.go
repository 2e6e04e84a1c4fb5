package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is how many bytes a listening socket may hold: a burst of hellos
// must not push out what established clients send.
const receiveBuffer = 4 << 20

// packetSocket is one of the sockets of a datagram listener.
type packetSocket struct {
	*net.UDPConn
	raw   syscall.RawConn
	inet6 bool
}

// listenPackets binds n sockets to one address; the kernel keeps each client on
// one of them.
func listenPackets(ctx context.Context, w Where, n int) ([]*packetSocket, error) {
	if w.Systemd != "" {
		s, err := packetsOfSystemd(w.Systemd)
		return []*packetSocket{s}, err
	}
	network := "udp"
	if w.Host == "0.0.0.0" {
		network = "udp4" // as in listenTCP
	}
	// The first is bound alone, so that it fails where another process listens: with
	// SO_REUSEPORT it would quietly get a part of that one's datagrams.
	first, err := listenPacketSocket(ctx, network, w.String(), false)
	if err != nil {
		return nil, listenError(w, err, "u")
	}
	all := []*packetSocket{first}
	if err := first.set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		first.Close()
		return nil, err
	}
	for len(all) < n {
		s, err := listenPacketSocket(ctx, network, first.LocalAddr().String(), true)
		if err != nil {
			for _, s := range all {
				s.Close()
			}
			return nil, listenError(w, err, "u")
		}
		all = append(all, s)
	}
	return all, nil
}

func defaultSockets() int { return min(runtime.GOMAXPROCS(0), 4) }

func listenPacketSocket(ctx context.Context, network, address string, shared bool) (*packetSocket, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { setPacketOptions(int(fd), shared) })
	}}
	c, err := lc.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	s := &packetSocket{UDPConn: c.(*net.UDPConn)}
	if s.raw, err = s.SyscallConn(); err == nil {
		err = s.askForAddress()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// setPacketOptions leaves errors: a kernel without an option is no reason not to serve.
func setPacketOptions(fd int, shared bool) {
	if shared {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	// Beyond net.core.rmem_max only with CAP_NET_ADMIN.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	letFragment(fd)
}

// letFragment has routers cut what is too large for their next link: with the
// DF bit that Linux sets by itself, a datagram is lost for each smaller MTU that is
// found. Over IPv6 only the sender fragments, and Linux does by itself.
func letFragment(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
}

// askForAddress has the kernel say to which of our addresses a datagram came: a
// socket of all addresses would else answer from any, which clients and firewalls drop.
func (s *packetSocket) askForAddress() error {
	var domain int
	var err error
	if cerr := s.raw.Control(func(fd uintptr) { domain, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN) }); cerr != nil {
		return cerr
	}
	if s.inet6 = domain == unix.AF_INET6; s.inet6 && err == nil {
		return s.set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return errors.Join(err, s.set(unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
}

func (s *packetSocket) set(level, option, value int) (err error) {
	if cerr := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }); cerr != nil {
		return cerr
	}
	return err
}

// sendNow sends without waiting, from the address of oob.
func (s *packetSocket) sendNow(p, oob []byte, to netip.AddrPort) (err error) {
	var sa unix.Sockaddr
	if s.inet6 {
		six := &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
		six.ZoneId = zoneNumber(to.Addr().Zone())
		sa = six
	} else {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	if cerr := s.raw.Control(func(fd uintptr) { _, err = unix.SendmsgN(int(fd), p, oob, sa, unix.MSG_DONTWAIT) }); cerr != nil {
		return cerr
	}
	return err
}

// zoneNumber reads a zone as batch.from writes it.
func zoneNumber(zone string) (n uint32) {
	for i := range len(zone) {
		n = 10*n + uint32(zone[i]-'0')
	}
	return n
}
