package wire

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// cut gives a hello in parts that begin at these offsets, each a datagram.
func cut(seq uint16, body []byte, at ...int) [][]byte {
	var parts [][]byte
	for i, from := range at {
		to := len(body)
		if i+1 < len(at) {
			to = at[i+1]
		}
		parts = append(parts, part(seq, body, from, to))
	}
	return parts
}

// part is one fragment in a datagram.
func part(seq uint16, body []byte, from, to int) []byte {
	return record(typeHandshake, VersionDTLS10, 0, uint64(9+from), nil, piece(typeClientHello, len(body), seq, from, to-from, body[from:to]))
}

// held checks what the parts take, against what the type promises.
func held(t testing.TB, h *HelloFragments) {
	t.Helper()
	size, end := 0, 0
	for _, p := range h.pieces {
		if p.offset < end || len(p.body) == 0 || len(p.body) != cap(p.body) && cap(p.body) > 2*len(p.body)+64 {
			t.Fatalf("a piece at %d of %d bytes in %d, behind one that ends at %d", p.offset, len(p.body), cap(p.body), end)
		}
		end = p.offset + len(p.body)
		size += len(p.body)
	}
	if size != h.size || end > h.length || h.length > MaxDTLSHello || size > 0 && size >= h.length || len(h.pieces) > maxFragments {
		t.Fatalf("%d pieces of %d bytes, %d as it says, of %d", len(h.pieces), size, h.size, h.length)
	}
}

// feedParts gives the datagrams to h, each in memory that is used again for the next
// one, and gives its last answer.
func feedParts(t testing.TB, h *HelloFragments, datagrams ...[]byte) (whole []byte, err error) {
	t.Helper()
	var memory [64 << 10]byte
	for i, d := range datagrams {
		p := memory[:copy(memory[:], d)]
		whole, err = h.Feed(p)
		clear(p)
		if (err == nil) != (whole != nil) {
			t.Fatalf("datagram %d: %x, %v", i, whole, err)
		}
		if err != nil && err != ErrMore {
			return nil, err
		}
		held(t, h)
		if err == nil && i < len(datagrams)-1 {
			t.Fatalf("whole after %d datagrams of %d", i+1, len(datagrams))
		}
	}
	return whole, err
}

func wantHello(t testing.TB, whole []byte, err error, seq uint16, body []byte) {
	t.Helper()
	h, perr := ParseDTLSHello(whole)
	if err != nil || perr != nil {
		t.Fatalf("%v, %v", err, perr)
	}
	if !bytes.Equal(h.Raw[handshakeHeader:], body) || h.MessageSeq != seq || len(whole) != dtlsHeader+handshakeHeader+len(body) {
		t.Fatalf("another hello, message %d:\n%x\n%x", h.MessageSeq, h.Raw[handshakeHeader:], body)
	}
}

func TestHelloFragments(t *testing.T) {
	body := dtlsBody(hello(sni("a.example"), alpn("h2")), []byte("cookie"))
	n := len(body)
	three := cut(2, body, 0, 20, 60)
	reversed := slices.Clone(three)
	slices.Reverse(reversed)
	p := func(from, to int) []byte { return part(2, body, from, to) }
	for what, datagrams := range map[string][][]byte{
		"in one piece":                   cut(2, body, 0),
		"in order":                       three,
		"reversed":                       reversed,
		"the middle last":                {three[0], three[2], three[1]},
		"each twice":                     {three[2], three[2], three[0], three[0], three[1]},
		"one that has all, at last":      {three[1], p(0, n)},
		"overlapping at its end":         {p(0, 40), p(30, n)},
		"overlapping at its beginning":   {p(30, n), p(0, 40)},
		"within another":                 {p(0, 60), p(10, 20), p(60, n)},
		"over a gap and both sides":      {p(10, 20), p(30, 40), p(15, 35), p(0, 10), p(40, n)},
		"over many pieces":               {p(5, 6), p(8, 9), p(11, 12), p(14, 15), p(0, n)},
		"from before to behind a piece":  {p(20, 30), p(10, 50), p(50, n), p(0, 10)},
		"meeting to the byte":            {p(20, 30), p(30, 40), p(10, 20), p(40, n), p(0, 10)},
		"several in one datagram":        {slices.Concat(three[2], three[0]), three[1]},
		"all in one datagram":            {slices.Concat(reversed...)},
		"with a record of something":     {three[1], slices.Concat(three[0], record(20, VersionDTLS12, 0, 9, nil, []byte{1})), three[2]},
		"an older one's part in between": {three[0], part(1, body, 0, 50), part(0, body[:n-1], 0, 3), three[1], three[2]},
		"after parts of an older one":    {part(0, body, 0, 50), part(1, body[:n-5], 3, 9), three[0], three[1], three[2]},
	} {
		t.Run(what, func(t *testing.T) {
			h := new(HelloFragments)
			whole, err := feedParts(t, h, datagrams...)
			wantHello(t, whole, err, 2, body)
			if !reflect.DeepEqual(*h, HelloFragments{}) {
				t.Errorf("something is left: %+v", h)
			}
			// It is ready for the next one, which may be another hello.
			whole, err = feedParts(t, h, cut(0, body[:n-10], 0, 7)...)
			if err != nil || len(whole) != dtlsHeader+handshakeHeader+n-10 {
				t.Errorf("the next one: %d bytes, %v", len(whole), err)
			}
		})
	}
	// Two messages' worth of one record: some stacks put more than one fragment there.
	both := record(typeHandshake, VersionDTLS10, 0, 7, nil, slices.Concat(three[2][dtlsHeader:], three[0][dtlsHeader:], three[1][dtlsHeader:]))
	whole, err := feedParts(t, new(HelloFragments), both)
	wantHello(t, whole, err, 2, body)
	if h, err := ReadHelloHead(whole); err != nil || h.RecordSeq != 7 {
		t.Errorf("its record has number %d, %v: an answer must have that of the last part", h.RecordSeq, err)
	}
}

func TestHelloFragmentsRefuses(t *testing.T) {
	body := dtlsBody(hello(sni("a.example")), nil)
	n := len(body)
	other := bytes.Clone(body)
	other[25] ^= 1
	p := func(from, to int) []byte { return part(0, body, from, to) }
	message := func(msg []byte) []byte { return record(typeHandshake, VersionDTLS10, 0, 0, nil, msg) }
	for what, c := range map[string]struct {
		datagrams [][]byte
		want      error // nil: a MalformedError
	}{
		"an overlap that differs":           {[][]byte{p(0, 30), part(0, other, 20, 40)}, errOverlap},
		"one that differs in its last byte": {[][]byte{p(25, 30), part(0, other, 20, 26)}, errOverlap},
		"one that differs in the middle":    {[][]byte{p(25, 26), part(0, other, 0, n)}, errOverlap},
		"another length":                    {[][]byte{p(0, 30), part(0, body[:n-1], 30, 40)}, nil},
		"a length of 2^24-1":                {[][]byte{message(piece(typeClientHello, 1<<24-1, 0, 0, 10, body[:10]))}, ErrTooLarge},
		"a byte too many":                   {[][]byte{message(piece(typeClientHello, MaxDTLSHello+1, 0, MaxDTLSHello, 1, body[:1]))}, ErrTooLarge},
		"an empty part":                     {[][]byte{p(0, 30), message(piece(typeClientHello, n, 0, 30, 0, nil))}, nil},
		"a part beyond the message":         {[][]byte{p(0, 30), message(piece(typeClientHello, n, 0, n-1, 2, body[:2]))}, nil},
		"an offset beyond the message":      {[][]byte{message(piece(typeClientHello, n, 0, 1<<24-1, 1, body[:1]))}, nil},
		"a part cut off":                    {[][]byte{message(piece(typeClientHello, n, 0, 0, 30, body[:29]))}, nil},
		"another message behind the part":   {[][]byte{message(append(piece(typeClientHello, n, 0, 0, 30, body[:30]), 11))}, nil},
		"a header cut off behind the part":  {[][]byte{message(append(piece(typeClientHello, n, 0, 0, 30, body[:30]), typeClientHello))}, nil},
		"a record cut off behind the first": {[][]byte{append(p(0, 30), p(30, 40)[:dtlsHeader]...)}, nil},
		"rubbish behind the first":          {[][]byte{append(p(0, 30), "rubbish"...)}, ErrNotTLS},
		"no hello":                          {[][]byte{p(0, 30), record(20, VersionDTLS12, 0, 9, nil, []byte{1})}, ErrNotTLS},
		"a hello of the next epoch":         {[][]byte{record(typeHandshake, VersionDTLS12, 1, 0, nil, p(0, 30)[dtlsHeader:])}, ErrNotTLS},
		"rubbish":                           {[][]byte{[]byte("GET / HTTP/1.1\r\n\r\n")}, ErrNotTLS},
	} {
		h := new(HelloFragments)
		whole, err := feedParts(t, h, c.datagrams...)
		if whole != nil || c.want == nil && !isMalformed(err) || c.want != nil && err != c.want {
			t.Errorf("%s: %x, %v", what, whole, err)
		}
		held(t, h)
	}
	if whole, err := new(HelloFragments).Feed(nil); whole != nil || err != ErrMore {
		t.Errorf("an empty datagram: %x, %v", whole, err)
	}
}

// DT-06: single bytes are taken as far as the bound on parts goes, whichever
// places they have.
func TestHelloFragmentsOfOneByte(t *testing.T) {
	const maxFragments = 64 // as the documentation says
	small := make([]byte, maxFragments)
	large := make([]byte, MaxDTLSHello)
	for i := range small {
		small[i] = byte(i + 1)
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(len(small))
	var datagrams [][]byte
	for _, at := range order {
		datagrams = append(datagrams, part(0, small, at, at+1))
	}
	whole, err := feedParts(t, new(HelloFragments), datagrams...)
	if err != nil || !bytes.Equal(whole[dtlsHeader+handshakeHeader:], small) {
		t.Fatalf("%x, %v", whole, err)
	}
	for name, step := range map[string]int{"side by side": 1, "apart": 200} {
		h := new(HelloFragments)
		for i := range maxFragments {
			if _, err := feedParts(t, h, part(0, large, i*step, i*step+1)); err != ErrMore {
				t.Fatalf("%s: %d: %v", name, i, err)
			}
		}
		if _, err := feedParts(t, h, part(0, large, 0, 1)); err != ErrMore {
			t.Errorf("%s: a part that came before costs nothing: %v", name, err)
		}
		if _, err := feedParts(t, h, part(0, large, maxFragments*step, maxFragments*step+1)); err != errManyFragments {
			t.Errorf("%s: %v", name, err)
		}
		if h.size > maxFragments {
			t.Errorf("%s: %d bytes held", name, h.size)
		}
	}
}

// One part may leave many gaps to fill, and each is a part again.
func TestHelloFragmentsCountsWhatItFills(t *testing.T) {
	body := make([]byte, 1000)
	h := new(HelloFragments)
	for i := range 40 {
		if _, err := feedParts(t, h, part(0, body, 2*i+1, 2*i+2)); err != ErrMore {
			t.Fatal(err)
		}
	}
	if _, err := feedParts(t, h, part(0, body, 0, 90)); err != errManyFragments {
		t.Errorf("40 parts with 40 gaps between them, filled: %v", err)
	}
	held(t, h)
}
