package wire

import (
	"bytes"
	"testing"
)

func TestAlertRecord(t *testing.T) {
	for _, c := range []struct {
		version uint16
		want    []byte
	}{
		{VersionTLS12, []byte{21, 3, 3, 0, 2, 2, 112}},
		{VersionTLS13, []byte{21, 3, 3, 0, 2, 2, 112}},
		{VersionTLS11, []byte{21, 3, 1, 0, 2, 2, 112}},
		{0, []byte{21, 3, 1, 0, 2, 2, 112}},
	} {
		got := AlertRecord(c.version, AlertUnrecognizedName)
		if !bytes.Equal(got, c.want) {
			t.Errorf("%#x: %x, want %x", c.version, got, c.want)
		}
		level, a, err := ParseAlert(append(got, "more"...))
		if level != AlertFatal || a != AlertUnrecognizedName || err != nil {
			t.Errorf("%x: %v, %v, %v", got, level, a, err)
		}
		for i := range got {
			if _, _, err := ParseAlert(got[:i]); err != ErrMore {
				t.Errorf("first %d bytes: %v", i, err)
			}
		}
	}
}

func TestParseAlertRefuses(t *testing.T) {
	for _, b := range [][]byte{
		{22}, {21, 2}, {21, 3, 3, 1}, {21, 3, 3, 0, 1}, {21, 3, 3, 0, 3}, {21, 3, 3, 0, 2, 0}, {21, 3, 3, 0, 2, 3, 0},
		{21, 3, 3, 0, 26, 0xff}, // encrypted, as TLS 1.2 sends it
	} {
		if _, _, err := ParseAlert(b); err != ErrNotTLS {
			t.Errorf("%x: %v", b, err)
		}
	}
	if level, a, err := ParseAlert([]byte{21, 3, 1, 0, 2, 1, 0}); level != AlertWarning || a != AlertCloseNotify || err != nil {
		t.Error(level, a, err)
	}
}

func TestAlertNames(t *testing.T) {
	for a, want := range map[Alert]string{0: "close_notify", 45: "certificate_expired", 48: "unknown_ca", 112: "unrecognized_name", 120: "no_application_protocol", 121: "ech_required", 200: "alert(200)"} {
		if got := a.String(); got != want {
			t.Errorf("%d: %s", a, got)
		}
	}
	if AlertWarning.String()+AlertFatal.String()+AlertLevel(7).String() != "warningfatallevel(7)" {
		t.Error("levels")
	}
}

func FuzzAlert(f *testing.F) {
	f.Add(AlertRecord(VersionTLS12, AlertInternalError))
	f.Add([]byte{21, 3, 1, 0, 2, 1, 0})
	f.Add([]byte{21, 3, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		level, a, err := ParseAlert(b)
		if err == nil && level == AlertFatal && (b[2] == 1 || b[2] == 3) {
			if again := AlertRecord(uint16(b[1])<<8|uint16(b[2]), a); !bytes.Equal(again, b[:len(again)]) {
				t.Errorf("%x came back as %x", b, again)
			}
		}
		if err == ErrMore && len(b) >= alertRecord || err == nil && len(b) < alertRecord {
			t.Errorf("%x: %v", b, err)
		}
	})
}
