package dane

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// What is said to fit a datagram: less than any path's MTU, so that none comes in
	// fragments, which can be forged one by one (dnsflagday.net/2020).
	datagramSize = 1232
	maxStray     = 16 // datagrams that answer something else, before we stop listening
)

// reply is a message that answers what was asked.
type reply struct {
	msg    *dns.Msg
	server Server
}

// secure is the resolver's own word, where it counts.
func (m *reply) secure() bool { return m.msg.AuthenticatedData && m.server.trusted() }

// refusal is an answer that says that there will be none.
type refusal struct {
	rcode int
	bogus bool   // by its own account (RFC 8914)
	extra string // what it says for people
}

func (e *refusal) Error() string {
	name := dns.RcodeToString[e.rcode]
	if name == "" {
		name = fmt.Sprintf("response code %d", e.rcode)
	}
	if e.extra != "" {
		return fmt.Sprintf("%s (%s)", name, e.extra)
	}
	return name
}

// exchange asks one server once, over TCP as well where a datagram has no room for
// the answer.
func (r *Resolver) exchange(ctx context.Context, s Server, q question, patience time.Duration, unchecked bool) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	query, wire, err := pack(q, unchecked)
	if err != nil {
		return nil, err
	}
	var m *dns.Msg
	network := "udp"
	if s.TCP {
		network = "tcp"
	}
	if s.TLS {
		network = "tls"
		m, err = r.overTLS(ctx, s.Addr, query, wire)
	} else {
		m, err = talk(ctx, r.o.Dial, network, s.Addr, query, wire)
	}
	if err == nil && m.Truncated && network == "udp" {
		network = "tcp"
		m, err = talk(ctx, r.o.Dial, network, s.Addr, query, wire)
	}
	switch {
	case err != nil:
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer in time (%w)", context.Cause(ctx))
		}
		return nil, err
	case m.Truncated:
		return nil, fmt.Errorf("the answer over %s is cut short", network)
	case m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError:
		return nil, refused(m)
	case !m.RecursionAvailable && !m.Authoritative:
		return nil, errors.New("this is no resolver: it answers for its own zones only")
	}
	return &reply{m, s}, nil
}

func pack(q question, unchecked bool) (*dns.Msg, []byte, error) {
	m := new(dns.Msg)
	var id [2]byte
	rand.Read(id[:])
	m.Id = binary.BigEndian.Uint16(id[:])
	m.RecursionDesired = true
	m.AuthenticatedData = true // what we understand (RFC 6840, section 5.7)
	m.CheckingDisabled = unchecked
	m.Question = []dns.Question{{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET}}
	m.SetEdns0(datagramSize, true)
	wire, err := m.Pack()
	return m, wire, err
}

// talk has one connection for one question: its port is a new one each time, which
// who answers in another's place has to guess together with the ID.
func talk(ctx context.Context, dial Dial, network, addr string, query *dns.Msg, wire []byte) (*dns.Msg, error) {
	c, err := dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	defer interrupt(ctx, c)()
	if network == "tcp" {
		return talkStream(c, query, wire)
	}
	if _, err := c.Write(wire); err != nil {
		return nil, err
	}
	buf := make([]byte, datagramSize+1)
	for range maxStray {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		m, err := parse(buf[:min(n, datagramSize)], query)
		if !errors.Is(err, errStray) {
			return m, err
		}
	}
	return nil, fmt.Errorf("%d datagrams came that answer something else", maxStray)
}

// interrupt ends what is under way on c with ctx; stop says whether it has not. It is
// not done by the deadline itself: then ctx says in every case that time was up.
func interrupt(ctx context.Context, c net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
}

func talkStream(c net.Conn, query *dns.Msg, wire []byte) (*dns.Msg, error) {
	if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, buf); err != nil {
		return nil, err
	}
	return parse(buf, query)
}

var errStray = errors.New("the answer is to another question")

// parse reads a message and sees that it answers query. What is too mangled to tell
// is as good as a stray one.
func parse(wire []byte, query *dns.Msg) (*dns.Msg, error) {
	m := new(dns.Msg)
	if len(wire) < 12 || binary.BigEndian.Uint16(wire) != query.Id || wire[2]&0x80 == 0 {
		return nil, errStray
	}
	err := m.Unpack(wire)
	if err != nil && !m.Truncated {
		return nil, fmt.Errorf("the answer is malformed: %w", err)
	}
	if m.Opcode != dns.OpcodeQuery || len(m.Question) > 1 {
		return nil, errStray
	}
	if len(m.Question) == 0 { // some errors come without (RFC 1035, section 4.1.1, has it both ways)
		if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
			return nil, errStray
		}
		return m, nil
	}
	q, asked := m.Question[0], query.Question[0]
	if q.Qtype != asked.Qtype || q.Qclass != asked.Qclass || !strings.EqualFold(q.Name, asked.Name) {
		return nil, errStray
	}
	return m, nil
}

// refused puts a response code into words.
func refused(m *dns.Msg) *refusal {
	e := &refusal{rcode: m.Rcode}
	opt := m.IsEdns0()
	if opt == nil {
		return e
	}
	for _, o := range opt.Option {
		ede, ok := o.(*dns.EDNS0_EDE)
		if !ok {
			continue
		}
		e.bogus = e.bogus || ede.InfoCode >= dns.ExtendedErrorCodeDNSBogus && ede.InfoCode <= dns.ExtendedErrorCodeNSECMissing
		e.extra = dns.ExtendedErrorCodeToString[ede.InfoCode]
		if ede.ExtraText != "" {
			e.extra = strings.TrimPrefix(e.extra+": ", ": ") + fmt.Sprintf("%.120q", ede.ExtraText)
		}
	}
	return e
}
