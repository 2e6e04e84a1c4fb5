package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

const (
	dtlsHandshakes  = 400
	datagramClients = 16
	datagramRounds  = 500
	idleDatagrams   = 5000
)

// Bound as those of streams are. What moves datagrams has none: at these sizes the
// kernel is nearly all of it.
var datagramRows = []row{
	{name: "DTLS 1.2 handshake ECDSA P-256", unit: "µs CPU", pattern: "dtls", measure: dtlsHandshakeCPU, bound: once(sign, keygen, agree)},
	{name: "DTLS, 1,000 datagrams of 200 bytes there and back", unit: "ms CPU", pattern: "dtls", measure: datagramCPU(200)},
	{name: "DTLS, 1,000 datagrams of 1,200 bytes there and back", unit: "ms CPU", pattern: "dtls", measure: datagramCPU(1200)},
	{name: "UDP, 1,000 datagrams of 200 bytes there and back", unit: "ms CPU", pattern: "udp", measure: datagramCPU(200)},
	{name: "UDP, 1,000 datagrams of 1,200 bytes there and back", unit: "ms CPU", pattern: "udp", measure: datagramCPU(1200)},
	{name: fmt.Sprintf("DTLS idle for %v", idleWait), unit: "KiB each", pattern: "dtls", measure: idleAssociations},
	{name: fmt.Sprintf("UDP idle for %v", idleWait), unit: "KiB each", pattern: "udp", measure: idleAssociations},
	{name: "DTLS flood of 50,000 spoofed hellos", unit: "µs CPU each", pattern: "dtls", single: true, measure: flooded},
}

// settling is for what a proxy does about clients that have left: it is part of
// what they cost.
const settling = 200 * time.Millisecond

func dtlsHandshakeCPU(b *bench, p *proxy, c *client) ([]figure, error) {
	var failed atomic.Int64
	var took time.Duration
	figures, err := perUnit(p, dtlsHandshakes, time.Microsecond, "", func() error {
		start := time.Now()
		err := together(4, dtlsHandshakes, func(i int) error {
			a, err := b.associate(p, i)
			if err == nil {
				_, err = a.bounce(64)
				a.close()
			}
			if err != nil {
				failed.Add(1)
			}
			return nil
		})
		took = time.Since(start)
		time.Sleep(settling)
		return err
	})
	if err != nil {
		return nil, err
	}
	done := dtlsHandshakes - failed.Load()
	if done == 0 {
		return nil, fmt.Errorf("no handshake of %d was finished", dtlsHandshakes)
	}
	figures[0].value *= dtlsHandshakes / float64(done)
	return []figure{
		figures[0],
		{"per second", float64(done) / took.Seconds()},
		{fmt.Sprintf("failed of %d", dtlsHandshakes), float64(failed.Load())},
	}, nil
}

// associateAll gives n associations, or none. One of a few that come together is
// often lost by socat, between two of its sockets: there is no more than one at a
// time, and each may try again.
func (b *bench) associateAll(p *proxy, n int) ([]*association, error) {
	all := make([]*association, n)
	err := together(1, n, func(i int) error {
		a, err := b.associate(p, i)
		for range 2 {
			if err == nil {
				break
			}
			a, err = b.associate(p, i)
		}
		if err != nil {
			return fmt.Errorf("association %d: %w", i, err)
		}
		all[i] = a
		_, err = a.bounce(64)
		return err
	})
	if err != nil {
		closeAll(all)
		return nil, err
	}
	return all, nil
}

func closeAll(all []*association) {
	for _, a := range all {
		if a != nil {
			a.close()
		}
	}
}

// datagramCPU has one datagram in flight for each client, so that no buffer of the
// kernel overflows.
func datagramCPU(size int) func(*bench, *proxy, *client) ([]figure, error) {
	return func(b *bench, p *proxy, _ *client) ([]figure, error) {
		all, err := b.associateAll(p, datagramClients)
		if err != nil {
			return nil, err
		}
		defer closeAll(all)
		var lost atomic.Int64
		figures, err := perUnit(p, datagramClients*datagramRounds/1000, time.Millisecond, "thousands/s", func() error {
			return together(datagramClients, datagramClients, func(i int) error {
				for range datagramRounds {
					n, err := all[i].bounce(size)
					if err != nil {
						return err
					}
					lost.Add(int64(n))
				}
				return nil
			})
		})
		return append(figures, figure{"lost", float64(lost.Load())}), err
	}
}

func idleAssociations(b *bench, p *proxy, _ *client) ([]figure, error) {
	warm, err := b.associateAll(p, 8)
	if err != nil {
		return nil, err
	}
	closeAll(warm)
	time.Sleep(settling)
	before, err := pss(p.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	all, err := b.associateAll(p, idleDatagrams)
	if err != nil {
		return nil, err
	}
	defer closeAll(all)
	time.Sleep(idleWait)
	after, err := pss(p.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	for i, a := range all {
		if _, err := a.bounce(64); err != nil {
			return nil, fmt.Errorf("association %d after it was idle: %w", i, err)
		}
	}
	return []figure{{"PSS", float64(after-before) / idleDatagrams / 1024}}, nil
}
