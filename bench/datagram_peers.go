package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// errSkip is for a row that a peer must not run.
var errSkip = errors.New("not for this one")

func (j job) datagrams() bool { return j.pattern == "dtls" || j.pattern == "udp" }

// socat forks for each association, which it begins with the first datagram: it
// asks for no cookie.
func socat(_ *bench, _ string, j job) ([]string, error) {
	if j.pattern != "dtls" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(j.listen)
	if err != nil {
		return nil, err
	}
	from := fmt.Sprintf("OPENSSL-DTLS-SERVER:%s,bind=%s,cert=%s,verify=0,fork,reuseaddr", port, host, j.cert)
	return []string{"socat", from, "UDP4:" + j.to}, nil
}

// udpDrops is how many datagrams the kernel has dropped for the sockets that are
// bound to a local port, and whether there are any.
func udpDrops(addr string) (drops int64, bound bool) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, false
	}
	want, err := strconv.Atoi(port)
	if err != nil {
		return 0, false
	}
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a kernel without IPv6 has one of them
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 13 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", want)) {
				continue
			}
			n, _ := strconv.ParseInt(f[len(f)-1], 10, 64)
			drops, bound = drops+n, true
		}
	}
	return drops, bound
}

// rss is the resident set size of one process, in bytes.
func rss(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, fmt.Errorf("statm of process %d has no second field", pid)
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}
