package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/testnet"
)

// The sockets that systemd gave outlive the process that it gave them to: a file that
// names one again has it, whether by an upgrade or by a reload after that.
func TestUpgradeKeepsSystemdSockets(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", t.TempDir())
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	voice, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer voice.Close()
	var sockets []*os.File
	for _, s := range []interface{ File() (*os.File, error) }{web.(*net.TCPListener), voice} {
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sockets = append(sockets, f)
	}
	tcp, udp := web.Addr().String(), voice.LocalAddr().String()
	without := fmt.Sprintf("log: {format: json}\ndefaults: {timeouts: {drain: 1m}}\nlisteners:\n  - {from: 'tcp://127.0.0.1:0', name: a, to: 'tcp://%s'}\n", serving(t, echo))
	with := without + fmt.Sprintf("  - {from: 'tcp://systemd:web', name: web, to: 'tcp://%s'}\n  - {from: 'udp://systemd:voice', name: voice, to: 'udp://%s'}\n", serveEach(t, echo), packetEcho(t))
	r := &reloader{site: new(site), file: filepath.Join(t.TempDir(), "sallyport.yaml")}
	r.write(t, with)
	r.Program = startAsSystemd(t, "web:voice", sockets, "run", "-c", r.file)
	r.WaitListeners(3)
	served := func(old ...net.Conn) {
		t.Helper()
		c, err := net.Dial("tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustEcho(t, c, []byte("web"))
		for _, c := range append(old, dialUDP(t, udp)) {
			mustEcho(t, c, []byte("voice"))
		}
	}
	long := dialUDP(t, udp)
	served(long)

	// What the running file does not name is there for the next, association and all.
	r.mustReload(t, without)
	mustEcho(t, long, []byte("goes on"))
	r.write(t, strings.Replace(with, "udp://systemd:voice', name: voice", "dtls://systemd:voice', name: voice, psk: '"+newCoap(t).psk+"'", 1))
	wrong := testnet.Launch(t, promptly, "upgrade", "-c", r.file)
	if code := wrong.Wait(); code != exitFailed || !strings.Contains(wrong.Stderr(), "listening on systemd:voice: the process before this one read datagrams from it for another listener") {
		t.Errorf("it ends with %d: %s", code, wrong.Stderr())
	}
	mustEcho(t, long, []byte("goes on"))
	var all []*testnet.Program
	for range 2 {
		r.write(t, with)
		next := testnet.StartIn(t, promptly, "upgrade", "-c", r.file)
		r.WaitLog("another process has taken over")
		next.WaitListeners(3)
		if next.Addr("web") != tcp || next.Addr("voice") != udp {
			t.Errorf("it listens on %s and %s, not on %s and %s", next.Addr("web"), next.Addr("voice"), tcp, udp)
		}
		if all == nil {
			served(long)
		}
		all, r.Program, r.reloads = append(all, r.Program), next, 0
		served()
		r.mustReload(t, without)
		r.mustReload(t, with)
		served()
		r.mustReload(t, without)
	}
	r.Signal(syscall.SIGKILL)
	for _, p := range all { // whose associations go on by what the last one reads
		if code := p.Wait(); code != 0 {
			t.Errorf("the exit code is %d", code)
		}
	}
}
