package transport_test

import (
	"os"
	"path/filepath"
	"testing"

	"sallyport/transport"
)

// A door that was closed leaves alone what stands at its path since.
func TestDoorClosesOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door")
	for range 20 { // some of which get the number of the file before them
		old, err := transport.ListenDoor(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		old.Close()
		next, err := transport.ListenDoor(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		old.Close()
		if _, err := os.Lstat(path); err != nil {
			t.Fatalf("closed twice, the old door took the next one's socket with it: %v", err)
		}
		next.Close()
	}
}
