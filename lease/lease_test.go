package lease

import "testing"

func TestClasses(t *testing.T) {
	for n, want := range map[int]int{0: 512, 512: 512, 513: 4096, 5000: 9472, 16 << 10: 18 << 10, 18<<10 + 1: 40 << 10, Most: Most} {
		b := Get(n)
		if len(b.Data) != want || cap(b.Data) != want {
			t.Errorf("for %d bytes there are %d, in %d", n, len(b.Data), cap(b.Data))
		}
		if b.Wastes(n) || b.Wastes(Most) {
			t.Errorf("%d bytes for %d are called a waste", want, n)
		}
		if want > 512 && !b.Wastes(512) {
			t.Errorf("%d bytes for 512 are not called a waste", want)
		}
		b.Put()
	}
	(*Buffer)(nil).Put()
}
