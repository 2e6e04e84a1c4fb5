package config

import (
	"path/filepath"
	"strings"
)

// parseWindow reads where the process is looked at from outside: admin or metrics,
// which speak HTTP in clear.
func parseWindow(text, key string) (Address, error) {
	if on, ok := switches[text]; ok && !bool(on) {
		return Address{}, nil
	}
	a, err := parseAddress(text, "from")
	hint := map[string]string{"admin": "unix:/run/sallyport/admin.sock", "metrics": "tcp://127.0.0.1:9100, unix:PATH"}[key]
	switch {
	case err != nil:
		return a, err
	case a.Carrier != "tcp" && key == "metrics":
		return a, complain(hint+"; for TLS put a listener of its own before it", "metrics are served over HTTP in clear, not %s://", a.Carrier)
	case a.Carrier != "tcp":
		return a, complain(hint, "`admin` is a unix socket, not %s://", a.Carrier)
	case a.Systemd != "":
		return a, complain(hint, "`%s` on a socket of systemd's "+notBuilt, key)
	case strings.HasPrefix(a.Unix, "@") && key == "admin":
		return a, complain(hint, "everybody may connect to an abstract socket, which has no mode")
	}
	return a, nil
}

// windows applies the rules about admin and metrics.
func (l *loader) windows(top *node) {
	f := l.file
	if dir := firstDir(l.env("RUNTIME_DIRECTORY")); l.run && dir != "" && top.entry("admin") == nil {
		path := filepath.Join(dir, "admin.sock")
		f.Admin = Address{Text: "unix:" + path, Carrier: "tcp", Unix: path}
	}
	tcp := f.Admin != (Address{}) && f.Admin.Unix == ""
	switch {
	case tcp && !bool(f.Unsafe.AdminTCP):
		pos := top.entry("admin").pos
		l.add(pos, "name a unix socket, unix:/run/sallyport/admin.sock, or write "+pos.word("unsafe.admin_tcp")+" too", "whoever reaches %s would control this process", f.Admin)
	case tcp:
		l.warn(top.entry("admin").pos, "unsafe.admin_tcp: whoever reaches %s controls this process", f.Admin)
	}
	if a, m := f.Admin, f.Metrics; a != (Address{}) && a.where() == m.where() && (a.Unix != "" || a.Port != 0) {
		l.add(top.entry("metrics").pos, "", "`admin` and `metrics` are the same address, %s", a.where())
	}
}

// ParseAdmin reads the address of a control socket, for who asks there.
func ParseAdmin(text string) (Address, error) {
	a, err := parseWindow(text, "admin")
	if err == nil && a == (Address{}) {
		err = complain("unix:/run/sallyport/admin.sock", "`%s` is no control socket", printable(text))
	}
	return a, err
}
