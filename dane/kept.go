package dane

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Connections for DNS over TLS carry several questions, one after the other, since a
// handshake costs more than all of them (RFC 7858, section 3.4).
const (
	keepIdle = 10 * time.Second
	maxIdle  = 4 // of one server
)

// kept holds connections that nobody uses now.
type kept struct {
	mu   sync.Mutex
	idle map[string][]*idle // by server
}

type idle struct {
	net.Conn
	take func() bool // false once it is being closed
}

// take gives the connection that was used last, or nil.
func (k *kept) take(addr string) net.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	for n := len(k.idle[addr]); n > 0; n = len(k.idle[addr]) {
		i := k.idle[addr][n-1]
		k.idle[addr] = k.idle[addr][:n-1]
		if i.take() {
			return i.Conn
		}
	}
	return nil
}

func (k *kept) put(addr string, c net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.idle[addr]) >= maxIdle {
		c.Close()
		return
	}
	if k.idle == nil {
		k.idle = make(map[string][]*idle)
	}
	ctx, cancel := context.WithTimeout(context.Background(), keepIdle)
	i := &idle{Conn: c}
	stop := context.AfterFunc(ctx, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.idle[addr] = slices.DeleteFunc(k.idle[addr], func(o *idle) bool { return o == i })
		cancel()
		c.Close()
	})
	i.take = func() bool {
		defer cancel()
		return stop()
	}
	k.idle[addr] = append(k.idle[addr], i)
}

// overTLS asks on a kept connection, and once on a new one: the server may have closed
// the other just now.
func (r *Resolver) overTLS(ctx context.Context, addr string, query *dns.Msg, wire []byte) (*dns.Msg, error) {
	if c := r.kept.take(addr); c != nil {
		m, err := r.talkTLS(ctx, c, addr, query, wire)
		if err == nil || ctx.Err() != nil {
			return m, err
		}
	}
	c, err := r.o.DialTLS(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return r.talkTLS(ctx, c, addr, query, wire)
}

// talkTLS keeps c where it has answered, and in time: else another answer may still come.
func (r *Resolver) talkTLS(ctx context.Context, c net.Conn, addr string, query *dns.Msg, wire []byte) (*dns.Msg, error) {
	stop := interrupt(ctx, c)
	m, err := talkStream(c, query, wire)
	if stop() && err == nil {
		r.kept.put(addr, c)
	} else {
		c.Close()
	}
	return m, err
}
