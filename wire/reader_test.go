package wire

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// records puts msg into records of at most n bytes.
func records(msg []byte, n int) []byte {
	var b []byte
	for part := range slices.Chunk(msg, n) {
		b = append(b, typeHandshake, 3, 1, byte(len(part)>>8), byte(len(part)))
		b = append(b, part...)
	}
	return b
}

// feed gives b in pieces that end at the cuts.
func feed(b []byte, cuts ...int) (h *Hello, err error) {
	var r HelloReader
	from := 0
	for _, to := range append(cuts, len(b)) {
		if h, err = r.Feed(b[from:to]); err != ErrMore {
			break
		}
		from = to
	}
	return h, err
}

func TestEveryByteByItself(t *testing.T) {
	for name, b := range captured(t) {
		want, err := feed(b)
		if err != nil {
			t.Fatal(err)
		}
		var r HelloReader
		for i := range b {
			h, err := r.Feed(b[i : i+1])
			if i < len(b)-1 && err != ErrMore || i == len(b)-1 && !reflect.DeepEqual(h, want) {
				t.Fatalf("%s, byte %d of %d: %v", name, i, len(b), err)
			}
		}
	}
}

func TestEverySplit(t *testing.T) {
	for name, b := range captured(t) {
		want, err := feed(b)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			var r HelloReader
			if _, err := r.Feed(b[:i]); err != ErrMore {
				t.Fatalf("%s, first %d of %d: %v", name, i, len(b), err)
			}
			if h, err := r.Feed(b[i:]); err != nil || !reflect.DeepEqual(h, want) {
				t.Fatalf("%s, split at %d: %v", name, i, err)
			}
		}
		for i := 1; i < len(want.Raw); i++ {
			two := append(records(want.Raw[:i], maxPlaintext), records(want.Raw[i:], maxPlaintext)...)
			if h, err := feed(two, i/2, i+3); err != nil || !reflect.DeepEqual(h, want) {
				t.Fatalf("%s, two records split at %d: %v", name, i, err)
			}
		}
	}
}

func TestFirstBytes(t *testing.T) {
	more := func(hex ...byte) []byte { return hex }
	for _, c := range []struct {
		b    []byte
		want error // nil for malformed
	}{
		{nil, ErrMore},
		{more(22), ErrMore},
		{more(22, 3), ErrMore},
		{more(22, 3, 1, 0, 1), ErrMore},
		{more(22, 3, 1, 0x40, 0), ErrMore},
		{more(22, 3, 1, 0, 1, 1), ErrMore},
		{more(21), ErrNotTLS},
		{more('G'), ErrNotTLS},
		{more(0x80), ErrNotTLS}, // SSLv2
		{more(22, 2), ErrNotTLS},
		{more(22, 0xfe), ErrNotTLS}, // DTLS
		{more(22, 3, 1, 0, 0), nil},
		{more(22, 3, 1, 0x40, 1), nil},
		{more(22, 3, 1, 0, 1, 2), nil},
		{more(22, 3, 1, 0, 1, 1, 23), nil},                    // another record type within
		{more(22, 3, 1, 0, 1, 1, 22, 4), nil},                 // another version within
		{more(22, 3, 1, 0, 1, 1, 22, 3, 1, 0, 0), nil},        // an empty record within
		{more(22, 3, 1, 0, 4, 1, 0, 0, 0), nil},               // an empty ClientHello
		{more(22, 3, 1, 0, 4, 1, 1, 0, 0), ErrTooLarge},       // 64 KiB and the header
		{more(22, 3, 1, 0, 4, 1, 0, 0xff, 0xfd), ErrTooLarge}, // one byte too many
		{more(22, 3, 1, 0, 4, 1, 0, 0xff, 0xfc), ErrMore},
		{more(22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff), ErrTooLarge},
	} {
		h, err := feed(c.b)
		if h != nil || (c.want == nil && !isMalformed(err)) || (c.want != nil && err != c.want) {
			t.Errorf("%x: %v, want %v", c.b, err, c.want)
		}
		for i := range c.b {
			if _, err := feed(c.b[:i]); err != ErrMore {
				t.Errorf("%x: %v already after %d bytes", c.b, err, i)
			}
		}
	}
}

// An answer stays, and what follows the hello does not matter.
func TestAnswerStays(t *testing.T) {
	b := captured(t)["curl"]
	var r HelloReader
	want, err := r.Feed(append(bytes.Clone(b), 20, 3, 3, 0, 1, 1, 0xff))
	if err != nil {
		t.Fatal(err)
	}
	if h, err := r.Feed([]byte("early data")); h != want || err != nil {
		t.Errorf("%v, %v", h, err)
	}
	sameRecord := records(append(bytes.Clone(want.Raw), 1, 2, 3), maxPlaintext)
	if h, err := feed(sameRecord); err != nil || !bytes.Equal(h.Raw, want.Raw) {
		t.Errorf("bytes in the same record: %v", err)
	}
	var bad HelloReader
	_, first := bad.Feed([]byte("x"))
	if h, err := bad.Feed(b); h != nil || err != first {
		t.Errorf("after %v: %v", first, err)
	}
}

func padded(size int) []byte {
	bare := hello(sni("a.example"), ext{21, nil})
	return hello(sni("a.example"), ext{21, make([]byte, size-len(bare))})
}

func TestLargestHello(t *testing.T) {
	msg := padded(MaxHello)
	for _, n := range []int{maxPlaintext, 4095, 100, 7} {
		b := records(msg, n)
		h, err := feed(b, len(b)/3, len(b)/2)
		if err != nil || !bytes.Equal(h.Raw, msg) || h.SNI != "a.example" {
			t.Errorf("records of %d: %v", n, err)
		}
	}
	over := bytes.Clone(msg)
	over[2], over[3] = 0xff, 0xfd
	if _, err := feed(records(append(over, 0), maxPlaintext)); err != ErrTooLarge {
		t.Errorf("one byte too many: %v", err)
	}
}

// Records of one byte each are six on the wire.
func TestManySmallRecords(t *testing.T) {
	fits := MaxRaw / 6
	if _, err := feed(records(padded(fits), 1)); err != nil {
		t.Errorf("%d records: %v", fits, err)
	}
	b := records(padded(fits+1), 1)
	if _, err := feed(b[:MaxRaw]); err != ErrMore {
		t.Errorf("at the bound: %v", err)
	}
	if _, err := feed(b, MaxRaw); err != ErrTooLarge {
		t.Errorf("past the bound: %v", err)
	}
	if _, err := feed(b); err != ErrTooLarge {
		t.Errorf("past the bound, in one piece: %v", err)
	}
}

// Who only claims a large hello makes us hold little.
func TestHoldsWhatCame(t *testing.T) {
	var r HelloReader
	b := records(padded(60000), maxPlaintext)
	for i := range 5000 {
		if _, err := r.Feed(b[i : i+1]); err != ErrMore {
			t.Fatal(err)
		}
		if cap(r.msg) > max(1024, 3*i) {
			t.Fatalf("%d bytes held after %d", cap(r.msg), i)
		}
	}
}

func TestLooksLikeHTTP(t *testing.T) {
	for s, want := range map[string]bool{
		"GET / HTTP/1.1\r\n": true, "PRI * HTTP/2.0": true, "OPTIONS *": true, "CONNECT a:443 HTTP/1.1": true, "POST ": true,
		"": false, "G": false, "GET": false, "GETS ": false, "get /": false, "EHLO a": false, "\x16\x03\x01": false, "SSH-2.0": false,
	} {
		if LooksLikeHTTP([]byte(s)) != want {
			t.Errorf("%q: %t", s, !want)
		}
	}
}

func TestLooksLikePROXY(t *testing.T) {
	for s, want := range map[string]bool{
		"PROXY TCP4 ": true, "\r\n\r\n\x00\r\nQUIT\n\x21": true,
		"": false, "PROXY": false, "proxy ": false, "\r\n\r\n\x00\r\nQUI": false, "\x16\x03\x01": false,
	} {
		if LooksLikePROXY([]byte(s)) != want {
			t.Errorf("%q: %t", s, !want)
		}
	}
}

func TestMalformedErrorSaysWhat(t *testing.T) {
	_, err := feed(records(hello(sni("a", "b")), 100))
	if got := fmt.Sprint(err); got != "malformed ClientHello: two host names in server_name" || errors.Is(err, ErrMore) {
		t.Error(got)
	}
}

func BenchmarkFeed(b *testing.B) {
	raw := captured(b)["go-default"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := new(HelloReader).Feed(raw); err != nil {
			b.Fatal(err)
		}
	}
}
