package lease

import (
	"bytes"
	"testing"
)

func TestClasses(t *testing.T) {
	for n, want := range map[int]int{0: 512, 512: 512, 513: 4096, 5000: 9472, 16 << 10: 18 << 10, 18<<10 + 1: 40 << 10, Most: Most} {
		b := Get(n)
		if len(b.Data) != want || cap(b.Data) != want {
			t.Errorf("for %d bytes there are %d, in %d", n, len(b.Data), cap(b.Data))
		}
		if fit, _ := b.Fit(b.Data[:n]); fit != b {
			t.Errorf("%d bytes for %d are called a waste", want, n)
		}
		if fit, _ := b.Fit(make([]byte, Most)); fit != b {
			t.Errorf("%d bytes for more are called a waste", want)
		}
		little := bytes.Repeat([]byte("x"), 512)
		copy(b.Data[len(b.Data)-512:], little)
		fit, p := b.Fit(b.Data[len(b.Data)-512:])
		if len(fit.Data) != 512 || !bytes.Equal(p, little) {
			t.Errorf("512 bytes in %d were moved to %d", want, len(fit.Data))
		}
		fit.Put()
	}
	fit, p := (*Buffer)(nil).Fit([]byte("another's"))
	if len(fit.Data) != 512 || string(p) != "another's" || &p[0] != &fit.Data[0] {
		t.Errorf("%q is kept in %d bytes", p, len(fit.Data))
	}
	fit.Put()
	(*Buffer)(nil).Put()
}
