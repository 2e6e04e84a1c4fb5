package revoke

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// What strangers' certificates have us keep stays within its bounds, and the last
// used stays longest.
func TestShelfIsBounded(t *testing.T) {
	at := time.Unix(1e9, 0)
	s := newShelf[int](func() time.Time { return at }, 10, 1000, 8)
	loads := 0
	get := func(n, size int) {
		t.Helper()
		v, err := s.get(t.Context(), fmt.Sprint(n), "", func(context.Context, *kept[int]) (*kept[int], error) {
			loads++
			return &kept[int]{n, size, at, at.Add(time.Hour)}, nil
		})
		if v != n || err != nil {
			t.Fatal(v, err)
		}
	}
	for n := range 100 {
		get(n, 10)
		get(0, 10) // stays
	}
	if len(s.items) > 10 || loads != 100 {
		t.Errorf("%d items, %d loads", len(s.items), loads)
	}
	for n := range 100 {
		get(1000+n, 300)
	}
	if s.bytes > 1000 || len(s.items) > 4 {
		t.Errorf("%d bytes, %d items", s.bytes, len(s.items))
	}
	for n := range 200 {
		s.get(t.Context(), fmt.Sprint("bad", n), "", func(context.Context, *kept[int]) (*kept[int], error) { return nil, errNoClient })
	}
	if len(s.items) > 10 {
		t.Errorf("%d failures are kept", len(s.items))
	}
	s.close()
}

func TestFlightsAreBounded(t *testing.T) {
	const most = 8
	s := newShelf[int](time.Now, 1000, 1000, most)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits
	for n := range 10 * most {
		for host, want := range map[string]int{"a": most / perHost, "b": most / perHost} {
			s.get(ctx, fmt.Sprint(host, n), host, func(ctx context.Context, _ *kept[int]) (*kept[int], error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			if got := s.hosts[host]; got != min(n+1, want) {
				t.Errorf("%d in flight to %s", got, host)
			}
		}
	}
	if _, err := s.get(t.Context(), "one more", "a", nil); err != errCrowd {
		t.Error(err)
	}
	for n := range 10 * most {
		s.get(ctx, fmt.Sprint(n), fmt.Sprint(n), func(ctx context.Context, _ *kept[int]) (*kept[int], error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}
	if n := len(s.stops); n != most {
		t.Errorf("%d in flight", n)
	}
	if _, err := s.get(t.Context(), "one more", "c", nil); err != errBusy {
		t.Error(err)
	}
	s.close()
	if len(s.hosts) != 0 {
		t.Errorf("%v after the end", s.hosts)
	}
}

// A panic over what a stranger sent is an error of that one fetch.
func TestPanicsAreErrors(t *testing.T) {
	s := newShelf[int](time.Now, 10, 10, 8)
	defer s.close()
	if _, err := s.get(t.Context(), "x", "", func(context.Context, *kept[int]) (*kept[int], error) { panic("boom") }); err == nil {
		t.Error("no error")
	}
}

func TestDiskIsBounded(t *testing.T) {
	at := time.Unix(1e9, 0)
	dir := t.TempDir()
	d, err := openDisk(dir, 20, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		if err := d.write(fmt.Sprint(n), make([]byte, 100), at.Add(time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.write("large", make([]byte, 2000), at); err != nil {
		t.Fatal(err)
	}
	count := func() (files, bytes int) {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			bytes += int(info.Size())
		}
		return len(list), bytes
	}
	if files, bytes := count(); bytes > 1000 || files > 20 || bytes != d.bytes || files != len(d.files) {
		t.Errorf("%d files of %d bytes, %d of %d are known", files, bytes, len(d.files), d.bytes)
	}
	if d.read("99", 200) == nil || d.read("0", 200) != nil {
		t.Error("the oldest is not what was dropped")
	}
	// What a process that was killed has left is swept, and the bounds hold for what
	// is found.
	if err := os.WriteFile(d.path(".new-123"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err = openDisk(dir, 3, 1000); err != nil {
		t.Fatal(err)
	}
	if files, _ := count(); files > 3 || files != len(d.files) {
		t.Errorf("%d files", files)
	}
}
