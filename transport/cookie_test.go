package transport

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sallyport/wire"
)

func headOf(t testing.TB, hello []byte) *wire.HelloHead {
	t.Helper()
	h, err := wire.ReadHelloHead(hello)
	if err != nil {
		t.Fatal(err)
	}
	return &h
}

// A cookie is good for half a minute at least and for a minute at most, however
// often others come meanwhile.
func TestCookiesAge(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	k := key{client: netip.MustParseAddrPort("192.0.2.1:5684"), local: netip.MustParseAddr("192.0.2.2")}
	hello := headOf(t, greeting(1))
	for range 100 {
		var j jar
		readers := [2]baker{{jar: &j}, {jar: &j}} // what one has made another knows
		now := time.Unix(1e9, 0)
		type made struct {
			at     time.Time
			cookie []byte
		}
		var all []made
		step := time.Duration(1 + r.IntN(20_000))
		for range 60 {
			now = now.Add(time.Duration(r.Int64N(int64(step * time.Millisecond))))
			b := &readers[r.IntN(2)]
			if r.IntN(2) == 0 {
				all = append(all, made{now, bytes.Clone(b.cookie(0, now, &sender{key: k}, hello))})
			}
			for _, m := range all {
				shown := *hello
				shown.Cookie = m.cookie
				age := now.Sub(m.at)
				if knows := b.knows(now, &sender{key: k}, &shown); knows && age > time.Minute || !knows && age < 30*time.Second {
					t.Fatalf("steps up to %v ms: known %v after %v", int64(step), knows, age)
				}
			}
		}
	}
}

// The longest and the shortest life that a cookie can have.
func TestCookiesAgeToTheSecond(t *testing.T) {
	k := key{client: netip.MustParseAddrPort("192.0.2.1:5684"), local: netip.MustParseAddr("192.0.2.2")}
	for _, c := range []struct {
		made, others, shown time.Duration // since the first one
		want                bool
	}{
		{0, 0, 59 * time.Second, true}, {0, 0, 60 * time.Second, false}, {0, 59 * time.Second, 61 * time.Second, false},
		{29 * time.Second, 31 * time.Second, 59 * time.Second, true}, {29 * time.Second, 29 * time.Second, 59 * time.Second, true},
		{29 * time.Second, 45 * time.Second, 60 * time.Second, false}, {29 * time.Second, 31 * time.Second, 61 * time.Second, false},
		{59 * time.Second, 59 * time.Second, 89 * time.Second, true}, {59 * time.Second, 89 * time.Second, 91 * time.Second, false},
		{0, 0, 24 * time.Hour, false}, {2 * time.Hour, 2 * time.Hour, 2*time.Hour + 29*time.Second, true},
	} {
		b := baker{jar: new(jar)}
		first, hello := time.Unix(1e9, 0), headOf(t, greeting(1))
		b.cookie(0, first, &sender{key: k}, hello)
		hello.Cookie = bytes.Clone(b.cookie(0, first.Add(c.made), &sender{key: k}, hello))
		b.cookie(0, first.Add(c.others), &sender{key: k}, hello)
		if got := b.knows(first.Add(c.shown), &sender{key: k}, hello); got != c.want {
			t.Errorf("made at %v, another at %v, shown at %v: %v", c.made, c.others, c.shown, got)
		}
	}
}

// No two of these clients share a cookie, nor does either know the other's.
func TestCookieIsOfOneClientAndItsHello(t *testing.T) {
	now := time.Now()
	addr := netip.MustParseAddr
	type asked struct {
		k     key
		hello *wire.HelloHead
	}
	four := func(a string) key { return key{client: netip.MustParseAddrPort(a), local: addr("10.0.0.1")} }
	head := func(before, after string) *wire.HelloHead {
		return &wire.HelloHead{Before: []byte(before), After: []byte(after)}
	}
	session := func(random, id string) *wire.HelloHead {
		return head("\xfe\xfd"+random+string(byte(len(id)))+id, "\x00\x02\xc0\x2b\x01\x00")
	}
	random := string(bytes.Repeat([]byte{7}, 32))
	all := []asked{
		{four("192.0.2.1:5684"), session(random, "")},
		{four("192.0.2.1:5685"), session(random, "")},
		{four("192.0.2.1:52502"), session(random, "")}, // the same two bytes, the other way round
		{four("192.0.2.2:5684"), session(random, "")},
		{four("[2001:db8::1]:5684"), session(random, "")},
		{four("[fe80::1%1]:5684"), session(random, "")},
		{four("[fe80::1%2]:5684"), session(random, "")},
		{four("[fe80::1]:5684"), session(random, "")},
		{key{client: netip.MustParseAddrPort("192.0.2.1:5684"), local: addr("10.0.0.2")}, session(random, "")},
		{key{client: netip.MustParseAddrPort("192.0.2.1:5684"), local: addr("fe80::1%1")}, session(random, "")},
		{four("192.0.2.1:5684"), session("\x08"+random[1:], "")},
		{four("192.0.2.1:5684"), session(random, "a")},
		{four("192.0.2.1:5684"), session(random, "aa")},
		{four("192.0.2.1:5684"), head("\xfe\xff"+random+"\x00", "\x00\x02\xc0\x2b\x01\x00")},
		{four("192.0.2.1:5684"), head("\xfe\xfd"+random+"\x00", "\x00\x02\xc0\x2c\x01\x00")},
		{four("192.0.2.1:5684"), head("\xfe\xfd"+random+"\x00", "\x00\x04\xc0\x2b\xc0\x2c\x01\x00")},
		{four("192.0.2.1:5684"), head("\xfe\xfd"+random+"\x00", "\x00\x02\xc0\x2b\x02\x00\x01")},
	}
	b, other := baker{jar: new(jar)}, baker{jar: new(jar)}
	var cookies [][]byte
	for i, a := range all {
		cookie := bytes.Clone(b.cookie(0, now, &sender{key: a.k}, a.hello))
		if len(cookie) != cookieSize || slices.ContainsFunc(cookies, func(c []byte) bool { return bytes.Equal(c, cookie) }) {
			t.Errorf("client %d: %x", i, cookie)
		}
		cookies = append(cookies, cookie)
	}
	for i, cookie := range cookies {
		for j, a := range all {
			shown := *a.hello
			shown.Cookie = cookie
			if got := b.knows(now, &sender{key: a.k}, &shown); got != (i == j) {
				t.Errorf("the cookie of %d, shown by %d: %v", i, j, got)
			}
			if other.knows(now, &sender{key: a.k}, &shown) {
				t.Errorf("the cookie of %d, shown to another listener by %d", i, j)
			}
			for n := range cookieSize + 2 { // cut off, or longer
				shown.Cookie = append(bytes.Clone(cookie), 0, 0)[:n]
				if i == j && n != cookieSize && b.knows(now, &sender{key: a.k}, &shown) {
					t.Errorf("%d bytes of a cookie do", n)
				}
			}
		}
		for bit := range 8 * cookieSize {
			shown := *all[i].hello
			shown.Cookie = bytes.Clone(cookie)
			shown.Cookie[bit/8] ^= 1 << (bit % 8)
			if b.knows(now, &sender{key: all[i].k}, &shown) {
				t.Errorf("client %d: bit %d does not matter", i, bit)
			}
		}
	}
}
