package transport

import (
	"errors"
	"net/netip"
	"time"

	"sallyport/flow"
	"sallyport/wire"
)

// reader is one goroutine that reads one socket and gives each datagram to whom it
// belongs. It waits for nobody.
//
//	plain    the association of the address; else a new one
//	DTLS     a connection ID                     whose it is; else its address's, where that is passed on
//	         a ClientHello, no cookie of ours    HelloVerifyRequest, and nothing is kept
//	         a part of one                       the half-open entries
//	         a ClientHello with our cookie       the association that it began; else a new one
//	         one that is passed on               the association of its random, whatever its cookie; else a new one
//	         any other record                    the association of the address
//
// What is left is dropped and counted.
type reader struct {
	a      *PacketAcceptor
	socket *packetSocket
	batch  *batch
	baker  baker
	answer []byte
}

func newReader(a *PacketAcceptor, s *packetSocket) *reader {
	return &reader{a: a, socket: s, batch: newBatch(s.UDPConn), baker: baker{jar: &a.cookies}}
}

func (r *reader) run() {
	for {
		n, err, closed := r.batch.read()
		switch {
		case closed:
			return
		case err != nil:
			// Nothing that the kernel reports here is the socket's end: it is short of something.
			time.Sleep(minPause)
			continue
		}
		r.a.counts[PacketsReceived].Add(uint64(n))
		now, header := time.Now(), r.a.headers()
		for i := range n {
			r.datagram(now, header, key{client: r.batch.from(i), local: r.batch.to(i)}, r.batch.payload(i))
		}
	}
}

func (r *reader) datagram(now time.Time, header flow.Header, k key, p []byte) {
	if !k.local.IsValid() {
		k.local = r.a.host
	}
	from := sender{key: k}
	if header != nil {
		var refused flow.Reason
		if from.who, p, refused = header(k.client, p); refused != "" {
			r.a.counts.add(headerCounts[refused])
			return
		}
	}
	r.take(now, &from, p)
}

func (r *reader) take(now time.Time, from *sender, p []byte) {
	if r.a.dtls {
		r.record(now, from, p)
	} else {
		r.plain(now, from, p)
	}
}

// back gives p to the process that had the socket before, which has whose it is.
func (r *reader) back(from *sender, p []byte) {
	if before := r.a.before.Load(); before == nil || !before.give(from, p) {
		r.a.counts.add(PacketsQueueFull)
	}
}

// headerCounts are how datagrams count that are dropped for their header.
var headerCounts = map[flow.Reason]PacketCount{
	flow.ProxyUntrusted: PacketsHeaderUntrusted, flow.ProxyHeaderMissing: PacketsHeaderMissing, flow.ProxyHeaderBad: PacketsHeaderBad,
}

func (r *reader) plain(now time.Time, from *sender, p []byte) {
	switch c := r.a.place(from).now; {
	case c != nil && from.who.Client.IsValid() && c.who.Client != from.who.Client:
		// Another client's, to whom the proxy gives the port anew; or this one's own
		// words, which a proxy has passed on that puts no header ahead of them.
		r.a.counts.add(PacketsHeaderOther)
	case c != nil:
		c.deliver(p, from.client)
	case r.a.before.Load().has(from):
		r.back(from, p)
	case from.client.Port() == 0: // no answer could get there
		r.a.counts.add(PacketsNoAssociation)
	case from.who.Missing:
		r.a.counts.add(PacketsHeaderMissing)
	case r.judge(from, nil) == Refuse:
		r.a.counts.add(PacketsRefused)
	default:
		r.a.begin(now, r.socket, from, nil, p, false)
	}
}

func (r *reader) judge(from *sender, hello []byte) Verdict {
	return r.a.judge(from.speaker(), netip.AddrPortFrom(from.local, r.a.port), hello)
}

func (a *PacketAcceptor) place(from *sender) place {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.placeOf(from.key, &from.who)
}

func (r *reader) record(now time.Time, from *sender, p []byte) {
	first, _, err := wire.ReadRecord(p, r.a.cidSize)
	switch {
	case err != nil:
		r.passed(from, p, PacketsNotDTLS)
		return
	case first.Type == wire.TypeCID:
		r.byCID(from, first.CID, p)
		return
	case first.IsClientHello():
		r.hello(now, from, p, len(p))
		return
	}
	at, elsewhere := r.a.place(from), r.a.before.Load().has(from)
	if elsewhere && (at.now == nil || first.Epoch > 0) { // as below, of two
		r.back(from, p)
	}
	switch {
	case at.now == nil && elsewhere:
	case at.now == nil:
		r.a.counts.add(PacketsNoAssociation)
	case at.shadow == nil || at.shadow.passes: // who has proved nothing is given hellos alone
		at.now.deliver(p, from.client)
	default:
		// Two keep the address. What is not yet encrypted is of the handshake; of
		// the rest either may be meant, and the other drops what it cannot open.
		at.shadow.deliver(p, from.client)
		if first.Epoch > 0 {
			at.now.deliver(p, from.client)
		}
	}
}

func (r *reader) byCID(from *sender, cid, p []byte) {
	r.a.mu.RLock()
	c := r.a.cids[string(cid)]
	r.a.mu.RUnlock()
	switch {
	case c != nil:
		c.deliver(p, from.client)
	case r.a.before.Load().hasCID(cid):
		r.back(from, p)
	default:
		r.passed(from, p, PacketsUnknownCID)
	}
}

// passed takes what only the server of an association that is passed on can read:
// connection IDs, whose length is the server's own, most of all. Of others it is lost.
func (r *reader) passed(from *sender, p []byte, lost PacketCount) {
	at, taken := r.a.place(from), false
	for _, c := range [...]*packetConn{at.shadow, at.now} {
		if c != nil && c.passes {
			c.deliver(p, from.client)
			taken = true
		}
	}
	switch {
	case taken:
	case r.a.before.Load().has(from):
		r.back(from, p)
	default:
		r.a.counts.add(lost)
	}
}

// hello takes a datagram that begins with a ClientHello; came is how many bytes
// it took the client to send it.
func (r *reader) hello(now time.Time, from *sender, p []byte, came int) {
	if from.who.Missing {
		r.a.counts.add(PacketsHeaderMissing)
		return
	}
	head, err := wire.ReadHelloHead(p)
	switch {
	case errors.Is(err, wire.ErrMore):
		if whole, came := r.a.waiting.feed(now, from, p); whole != nil {
			r.hello(now, from, whole, came)
		}
		return
	case err != nil || from.client.Port() == 0:
		r.a.counts.add(PacketsNotDTLS)
		return
	}
	at, known := r.a.place(from), r.baker.knows(now, from, &head)
	for _, c := range [...]*packetConn{at.shadow, at.now} {
		if c != nil && (known || c.passes) && string(c.random[:]) == string(head.Random) { // sent again
			c.deliver(head.Record, from.client)
			return
		}
	}
	if r.a.before.Load().began(from, head.Random) {
		r.back(from, head.Record)
		return
	}
	verdict := Take
	if !known {
		verdict = r.judge(from, head.Record)
	}
	switch {
	case verdict == Refuse:
		r.a.counts.add(PacketsRefused)
	case verdict == Pass, known:
		r.a.begin(now, r.socket, from, head.Random, head.Record, verdict == Pass)
	default:
		if len(head.Cookie) > 0 {
			r.a.counts.add(PacketsBadCookie)
		}
		r.verify(now, from, &head, came)
	}
}

// verify asks for the hello again with a cookie, by less than what came: who
// pretends to be at another's address must gain nothing by our answer.
func (r *reader) verify(now time.Time, from *sender, h *wire.HelloHead, came int) {
	cookie := r.baker.cookie(0, now, from, h)
	r.answer = wire.AppendHelloVerifyRequest(r.answer[:0], h.RecordSeq, h.MessageSeq, cookie)
	if len(r.answer) > came {
		return
	}
	if r.socket.sendNow(r.answer, answerFrom(from.local, r.socket.inet6), from.client) != nil {
		r.a.counts.add(PacketsVerifyUnsent)
		return
	}
	r.a.counts.add(PacketsVerifySent)
}
