package transport

import (
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A vanished peer is noticed after keepIdle + keepCount*keepInterval of silence.
//
// TCP_USER_TIMEOUT is not set: Linux counts it against a peer that lives, answers
// its window probes and merely does not read, so that a paused download or a
// paged query would be cut.
const (
	keepIdle     = 60 * time.Second
	keepInterval = 15 * time.Second
	keepCount    = 4
)

// setOptions sets on a TCP socket what its connections have. Linux copies all of
// it from a listening socket to what it accepts, so that this costs nothing a
// connection; Go would set keep-alive on each, in four system calls.
//
// Package net sets TCP_NODELAY on each connection whatever we do. Errors are left:
// a kernel without an option is no reason not to serve.
func setOptions(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(keepIdle/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(keepInterval/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount)
}

// control is net.ListenConfig's hook before bind, and net.Dialer's before connect.
func control(network, _ string, c syscall.RawConn) error {
	switch network {
	case "tcp", "tcp4", "tcp6":
		return c.Control(func(fd uintptr) { setOptions(int(fd)) })
	}
	return nil
}

// dialControl leaves out a server on this host: it does not vanish without our
// kernel knowing, and four system calls are a good part of what a flow costs.
func dialControl(network, address string, c syscall.RawConn) error {
	switch network {
	case "udp4", "udp6":
		return c.Control(func(fd uintptr) { letFragment(int(fd)) })
	}
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().IsLoopback() {
		return nil
	}
	return control(network, address, c)
}

// keepAlive is the same for a connection of a listener that package net made
// from a file: there it sets its own keep-alive at each accept.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount}
