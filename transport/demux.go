package transport

import (
	"errors"
	"net/netip"
	"time"

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
	return &reader{a: a, socket: s, batch: newBatch(s.raw), baker: baker{jar: &a.cookies}}
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
		now := time.Now()
		for i := range n {
			k := key{r.batch.from(i), r.batch.to(i)}
			if !k.local.IsValid() {
				k.local = r.a.host
			}
			r.take(now, k, r.batch.payload(i))
		}
	}
}

func (r *reader) take(now time.Time, k key, p []byte) {
	if r.a.dtls {
		r.record(now, k, p)
	} else {
		r.plain(now, k, p)
	}
}

// back gives p to the process that had the socket before, which has whose it is.
func (r *reader) back(k key, p []byte) {
	if before := r.a.before.Load(); before == nil || !before.give(k, p) {
		r.a.counts.add(PacketsQueueFull)
	}
}

func (r *reader) plain(now time.Time, k key, p []byte) {
	switch c := r.a.place(k).now; {
	case c != nil:
		c.deliver(p, k.client)
	case r.a.before.Load().has(k):
		r.back(k, p)
	case k.client.Port() == 0: // no answer could get there
		r.a.counts.add(PacketsNoAssociation)
	case r.a.judge(k.client, netip.AddrPortFrom(k.local, r.a.port), nil) == Refuse:
		r.a.counts.add(PacketsRefused)
	default:
		r.a.begin(now, r.socket, k, nil, p, false)
	}
}

func (a *PacketAcceptor) place(k key) place {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.at[k]
}

func (r *reader) record(now time.Time, k key, p []byte) {
	first, _, err := wire.ReadRecord(p, r.a.cidSize)
	switch {
	case err != nil:
		r.passed(k, p, PacketsNotDTLS)
		return
	case first.Type == wire.TypeCID:
		r.byCID(k, first.CID, p)
		return
	case first.IsClientHello():
		r.hello(now, k, p, len(p))
		return
	}
	at, elsewhere := r.a.place(k), r.a.before.Load().has(k)
	if elsewhere && (at.now == nil || first.Epoch > 0) { // as below, of two
		r.back(k, p)
	}
	switch {
	case at.now == nil && elsewhere:
	case at.now == nil:
		r.a.counts.add(PacketsNoAssociation)
	case at.shadow == nil || at.shadow.passes: // who has proved nothing is given hellos alone
		at.now.deliver(p, k.client)
	default:
		// Two keep the address. What is not yet encrypted is of the handshake; of
		// the rest either may be meant, and the other drops what it cannot open.
		at.shadow.deliver(p, k.client)
		if first.Epoch > 0 {
			at.now.deliver(p, k.client)
		}
	}
}

func (r *reader) byCID(k key, cid, p []byte) {
	r.a.mu.RLock()
	c := r.a.cids[string(cid)]
	r.a.mu.RUnlock()
	switch {
	case c != nil:
		c.deliver(p, k.client)
	case r.a.before.Load().hasCID(cid):
		r.back(k, p)
	default:
		r.passed(k, p, PacketsUnknownCID)
	}
}

// passed takes what only the server of an association that is passed on can read:
// connection IDs, whose length is the server's own, most of all. Of others it is lost.
func (r *reader) passed(k key, p []byte, lost PacketCount) {
	at, taken := r.a.place(k), false
	for _, c := range [...]*packetConn{at.shadow, at.now} {
		if c != nil && c.passes {
			c.deliver(p, k.client)
			taken = true
		}
	}
	switch {
	case taken:
	case r.a.before.Load().has(k):
		r.back(k, p)
	default:
		r.a.counts.add(lost)
	}
}

// hello takes a datagram that begins with a ClientHello; came is how many bytes
// it took the client to send it.
func (r *reader) hello(now time.Time, k key, p []byte, came int) {
	head, err := wire.ReadHelloHead(p)
	switch {
	case errors.Is(err, wire.ErrMore):
		if whole, came := r.a.waiting.feed(now, k, p); whole != nil {
			r.hello(now, k, whole, came)
		}
		return
	case err != nil || k.client.Port() == 0:
		r.a.counts.add(PacketsNotDTLS)
		return
	}
	at, known := r.a.place(k), r.baker.knows(now, k, &head)
	for _, c := range [...]*packetConn{at.shadow, at.now} {
		if c != nil && (known || c.passes) && string(c.random[:]) == string(head.Random) { // sent again
			c.deliver(head.Record, k.client)
			return
		}
	}
	if r.a.before.Load().began(k, head.Random) {
		r.back(k, head.Record)
		return
	}
	verdict := Take
	if !known {
		verdict = r.a.judge(k.client, netip.AddrPortFrom(k.local, r.a.port), head.Record)
	}
	switch {
	case verdict == Refuse:
		r.a.counts.add(PacketsRefused)
	case verdict == Pass, known:
		r.a.begin(now, r.socket, k, head.Random, head.Record, verdict == Pass)
	default:
		if len(head.Cookie) > 0 {
			r.a.counts.add(PacketsBadCookie)
		}
		r.verify(now, k, &head, came)
	}
}

// verify asks for the hello again with a cookie, by less than what came: who
// pretends to be at another's address must gain nothing by our answer.
func (r *reader) verify(now time.Time, k key, h *wire.HelloHead, came int) {
	cookie := r.baker.cookie(0, now, k, h)
	r.answer = wire.AppendHelloVerifyRequest(r.answer[:0], h.RecordSeq, h.MessageSeq, cookie)
	if len(r.answer) > came {
		return
	}
	if r.socket.sendNow(r.answer, answerFrom(k.local, r.socket.inet6), k.client) != nil {
		r.a.counts.add(PacketsVerifyUnsent)
		return
	}
	r.a.counts.add(PacketsVerifySent)
}
