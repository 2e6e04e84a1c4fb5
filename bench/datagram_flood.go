package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	spoofedHellos = 50_000
	floodBurst    = 50
	floodEvery    = 5 * time.Millisecond // bursts, each of which a socket's buffer holds
	floodFor      = spoofedHellos / floodBurst * floodEvery
	floodClients  = 500
	floodTalk     = 10 // datagrams there and back, of each client
	helloFile     = "wire/testdata/dtls/openssl.hex"
)

// flooded measures a flood alone for its CPU, and then one more while clients make
// their handshakes and talk.
func flooded(b *bench, p *proxy, _ *client) ([]figure, error) {
	if p.peer.name == "socat" {
		return nil, errSkip // it starts a process for each hello
	}
	warm, err := b.associateAll(p, floodClients)
	if err != nil {
		return nil, err
	}
	closeAll(warm)
	time.Sleep(settling)
	pid := p.cmd.Process.Pid
	most := watchRSS(pid)
	before := b.talk(p)
	talking := most()

	drops, _ := udpDrops(p.addr)
	var alone, beside, served int64
	most = watchRSS(pid)
	figures, err := perUnit(p, spoofedHellos, time.Microsecond, "hellos/s", func() (err error) {
		alone, err = spoof(p.addr)
		return err
	})
	flooding := most()
	if err != nil {
		return nil, err
	}
	most = watchRSS(pid)
	var wg sync.WaitGroup
	wg.Go(func() { served = b.talk(p) })
	beside, err = spoof(p.addr)
	wg.Wait()
	both := most()
	if err != nil {
		return nil, err
	}
	now, _ := udpDrops(p.addr)
	return append(figures,
		figure{fmt.Sprintf("answered of %d", 2*spoofedHellos), float64(alone + beside)},
		figure{"dropped by the socket", float64(now - drops)},
		figure{fmt.Sprintf("clients served of %d, no flood", floodClients), float64(before)},
		figure{fmt.Sprintf("clients served of %d, in the flood", floodClients), float64(served)},
		figure{"MiB RSS at most, clients alone", float64(talking) / (1 << 20)},
		figure{"MiB RSS at most, flood alone", float64(flooding) / (1 << 20)},
		figure{"MiB RSS at most, both", float64(both) / (1 << 20)},
	), nil
}

// talk spreads its clients over the flood and counts those that got everything.
func (b *bench) talk(p *proxy) int64 {
	var served atomic.Int64
	var wg sync.WaitGroup
	for i := range floodClients {
		wg.Go(func() {
			a, err := b.associate(p, i)
			if err != nil {
				return
			}
			defer a.close()
			for range floodTalk {
				if _, err := a.bounce(200); err != nil {
					return
				}
				time.Sleep(floodFor / floodTalk / 2)
			}
			served.Add(1)
		})
		time.Sleep(floodFor / 2 / floodClients)
	}
	wg.Wait()
	return served.Load()
}

// spoof sends hellos from as many addresses, and says how many were answered.
func spoof(addr string) (answers int64, err error) {
	hello, err := readHello()
	if err != nil {
		return 0, err
	}
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		return 0, err
	}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{})
	if err != nil {
		return 0, err
	}
	if err := socket.SetReadBuffer(4 << 20); err != nil {
		closing(socket)
		return 0, err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		p := make([]byte, 2048)
		for {
			if _, err := socket.Read(p); err != nil {
				return // closed below
			}
			answers++
		}
	})
	tick := time.NewTicker(floodEvery)
	defer tick.Stop()
	for n := range spoofedHellos {
		if n%floodBurst == 0 {
			<-tick.C
		}
		// From 127.1.0.0 on: none that a client has.
		from := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: [4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)}})
		if _, _, err = socket.WriteMsgUDP(hello, from, to); err != nil {
			break
		}
	}
	time.Sleep(settling)
	closing(socket)
	wg.Wait()
	return answers, err
}

// readHello takes the first datagram of a capture: lines of comment, then of
// hexadecimal digits.
func readHello() ([]byte, error) {
	text, err := os.ReadFile(helloFile)
	if err != nil {
		return nil, err
	}
	var digits strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			digits.WriteString(strings.TrimSpace(line))
		}
	}
	return hex.DecodeString(digits.String())
}

// watchRSS looks until it is asked for the most that it saw.
func watchRSS(pid int) func() int64 {
	var most int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if n, err := rss(pid); err == nil {
				most = max(most, n)
			}
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() int64 { close(stop); <-done; return most }
}
