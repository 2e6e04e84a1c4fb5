package wire

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

// A record that is read is what stands there, and with what is behind it the
// whole datagram.
func FuzzReadRecord(f *testing.F) {
	for _, datagrams := range capturedDTLS(f) {
		for _, b := range datagrams {
			f.Add(b, 0)
		}
	}
	f.Add(record(TypeCID, VersionDTLS12, 1, 2, []byte("12345678"), []byte("sealed")), 8)
	f.Add(append(record(20, VersionDTLS12, 0, 2, nil, []byte{1}), record(22, VersionDTLS12, 1, 0, nil, []byte("sealed"))...), 8)
	f.Fuzz(func(t *testing.T, b []byte, cid int) {
		cid &= 0xff
		r, rest, err := ReadRecord(b, cid)
		if err != nil {
			if err != ErrNotTLS && !isMalformed(err) || r.Raw != nil || rest != nil {
				t.Fatalf("%+v, %x, %v", r, rest, err)
			}
			return
		}
		if !bytes.Equal(slices.Concat(r.Raw, rest), b) {
			t.Fatal("a record and what is behind it are not the datagram")
		}
		if (r.Type == TypeCID) != (len(r.CID) == cid && r.CID != nil) {
			t.Fatalf("type %d with a connection ID of %d bytes, where ours have %d", r.Type, len(r.CID), cid)
		}
		if again := record(r.Type, r.Version, r.Epoch, r.Seq, r.CID, r.Body); !bytes.Equal(again, r.Raw) {
			t.Fatalf("%x came back as %x", r.Raw, again)
		}
	})
}

// What a server looks at first is what the hello says, and a hello over DTLS says
// what the same over TLS does.
func FuzzDTLSHello(f *testing.F) {
	for _, datagrams := range capturedDTLS(f) {
		f.Add(assembled(f, datagrams), []byte("cookie"))
	}
	f.Add(dtlsHello(dtlsBody(hello(sni("a"), alpn("h2")), nil)), []byte{})
	f.Add(dtlsHello(dtlsBody(message(VersionTLS10, []uint16{0xc009}, nil), []byte{1})), []byte{})
	f.Fuzz(func(t *testing.T, b, cookie []byte) {
		head, headErr := ReadHelloHead(b)
		h, err := ParseDTLSHello(b)
		if headErr != nil {
			if !reflect.DeepEqual(err, headErr) || h != nil {
				t.Fatalf("%v, then %+v, %v", headErr, h, err)
			}
			return
		}
		if !bytes.HasPrefix(b, head.Record) || !bytes.Equal(head.Record[dtlsHeader:], head.Raw) {
			t.Fatal("the message is not what the record holds")
		}
		around := slices.Concat(head.Before, []byte{byte(len(head.Cookie))}, head.Cookie, head.After)
		if !bytes.HasPrefix(head.Raw[handshakeHeader:], around) {
			t.Fatal("what is around the cookie is not what is there")
		}
		// The same bytes without the cookie, as a message of TLS.
		rest := head.Raw[handshakeHeader+len(around):]
		body := slices.Concat(head.Before, head.After, rest)
		msg := slices.Concat([]byte{typeClientHello, byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body)
		over, overErr := ParseHello(msg)
		if (err == nil) != (overErr == nil) {
			t.Fatalf("over DTLS %v, over TLS %v", err, overErr)
		}
		if err != nil {
			if h != nil || !isMalformed(err) {
				t.Fatalf("%+v, %v", h, err)
			}
			return
		}
		if h.MessageSeq != head.MessageSeq || h.RecordSeq != head.RecordSeq || !bytes.Equal(h.Random[:], head.Random) || !bytes.Equal(h.Cookie, head.Cookie) {
			t.Fatalf("%+v, %+v", h, head)
		}
		if ja4 := h.JA4(); len(ja4) != 36 || len(h.JA3()) != 32 || ja4[0] != 'd' {
			t.Fatalf("fingerprint %q", ja4)
		}
		sameOverTLS(t, h, over)
		if len(cookie) < 256 && len(head.Raw)-len(head.Cookie)+len(cookie) <= maxPlaintext {
			sameButCookie(t, "fuzzed", h, cookie)
		}
	})
}

// sameOverTLS compares all but what the two have not in common.
func sameOverTLS(t *testing.T, h, over *Hello) {
	t.Helper()
	same := *h
	same.DTLS, same.Cookie, same.MessageSeq, same.RecordSeq, same.Raw = false, nil, 0, 0, over.Raw
	if !slices.Contains(h.Extensions, extSupportedVersions) {
		same.Versions = over.Versions
	}
	if !reflect.DeepEqual(&same, over) {
		t.Fatalf("over DTLS it says\n%+v, over TLS\n%+v", h, over)
	}
}

// Whatever comes, in however many datagrams, what is held is within its bounds,
// and is a hello as soon as it is whole.
func FuzzHelloFragments(f *testing.F) {
	for _, datagrams := range capturedDTLS(f) {
		f.Add(slices.Concat(datagrams...), []byte{200, 3})
	}
	body := dtlsBody(hello(sni("a.example")), nil)
	f.Add(slices.Concat(cut(0, body, 0, 10, 30)...), []byte{35, 45})
	f.Add(slices.Concat(cut(0, body, 30, 40)...), []byte{35})
	f.Add(slices.Concat(part(0, body, 0, 30), part(1, body, 30, 40), part(1, body, 0, 35)), []byte{55})
	f.Fuzz(func(t *testing.T, b, steps []byte) {
		var h HelloFragments
		for i := 0; len(b) > 0; i++ {
			n := len(b)
			if len(steps) > 0 {
				n = min(n, max(1, int(steps[i%len(steps)])))
			}
			whole, err := h.Feed(b[:n])
			b = b[n:]
			held(t, &h)
			switch err {
			case nil:
				head, err := ReadHelloHead(whole)
				if err != nil && !isMalformed(err) || err == nil && !bytes.Equal(head.Record, whole) {
					t.Fatalf("a whole hello that is none: %v", err)
				}
				if len(h.pieces) != 0 || h.length != 0 {
					t.Fatal("something is left of it")
				}
			case ErrMore, ErrNotTLS, ErrTooLarge, errOverlap, errManyFragments:
			default:
				if !isMalformed(err) {
					t.Fatal(err)
				}
			}
		}
	})
}

// A hello in parts, in any order, some of them twice and some that overlap, is
// the hello that it was.
func FuzzCutHello(f *testing.F) {
	for _, datagrams := range capturedDTLS(f) {
		f.Add(assembled(f, datagrams)[dtlsHeader+handshakeHeader:], []byte{100, 3, 0, 7}, uint16(1))
	}
	f.Add(dtlsBody(hello(), nil), []byte{1, 1, 1, 9, 9, 9, 60, 0, 3, 3}, uint16(0))
	f.Fuzz(func(t *testing.T, body, script []byte, seq uint16) {
		if len(body) == 0 || len(body) > MaxDTLSHello {
			return
		}
		h := new(HelloFragments)
		have := make([]bool, len(body))
		missing, gaps := len(body), 0
		// Two bytes are where a part begins and how long it is; at last comes what is missing.
		for ; len(script) >= 2 && missing > 0 && gaps < maxFragments/2; script = script[2:] {
			from := int(script[0]) * len(body) / 256
			to := min(from+1+int(script[1]), len(body))
			whole, err := h.Feed(part(seq, body, from, to))
			held(t, h)
			for i := from; i < to; i++ {
				if !have[i] {
					have[i] = true
					missing--
				}
			}
			if gaps++; missing == 0 {
				wantBody(t, whole, err, seq, body)
				return
			}
			if err == errManyFragments { // a part that filled more gaps than there may be
				return
			}
			if err != ErrMore {
				t.Fatal(err)
			}
		}
		if missing == 0 {
			return
		}
		whole, err := h.Feed(part(seq, body, 0, len(body)))
		if err != errManyFragments {
			wantBody(t, whole, err, seq, body)
		}
	})
}

func wantBody(t *testing.T, whole []byte, err error, seq uint16, body []byte) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	r, rest, err := ReadRecord(whole, 0)
	if err != nil || len(rest) != 0 || !r.IsClientHello() {
		t.Fatalf("%+v, %x, %v", r, rest, err)
	}
	if !bytes.Equal(r.Body, piece(typeClientHello, len(body), seq, 0, len(body), body)) {
		t.Fatalf("another hello:\n%x\n%x", r.Body, body)
	}
}
