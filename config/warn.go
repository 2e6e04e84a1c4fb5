package config

import (
	"fmt"
	"slices"
)

func (l *loader) warn(pos Pos, format string, args ...any) {
	w := Warning{pos, fmt.Sprintf(format, args...)}
	if !slices.Contains(l.file.Warnings, w) { // an inherited key is seen once for each heir
		l.file.Warnings = append(l.file.Warnings, w)
	}
}

func (g *ruling) warnUnsafe() {
	u := g.route.Unsafe
	say := func(on Switch, key, text string) {
		if on {
			g.warn(g.at("unsafe."+key), "unsafe.%s: %s", key, text)
		}
	}
	say(u.NoVerify, "no_verify", "the server's certificate is not verified: whoever stands in between reads and changes everything")
	say(u.KeyLog != "", "keylog", "session keys are written to "+u.KeyLog+": whoever reads it reads the traffic")
	say(u.KeyMode, "key_mode", "key files that everybody on this host can read are taken")
	say(u.Truncation, "truncation", "a connection cut off without close_notify passes as a proper end")
	say(u.OpenFrom, "open_from", "any host that reaches "+g.lis.From.String()+" can use our client certificate or key")
}

// process applies what concerns the whole process.
func (l *loader) process(top *node) {
	f := l.file
	if f.StateDir == "" {
		f.StateDir = firstDir(l.env("STATE_DIRECTORY"))
	}
	if f.Unsafe.NoSandbox {
		l.warn(top.find("unsafe.no_sandbox").pos, "unsafe.no_sandbox: whoever breaks into this process has its privileges, and all files and system calls of its user")
	}
	l.windows(top)
	if off := f.Unsafe.ClockOffset; off != (ClockOffset{}) {
		by := off.By.String()
		if off.File != "" {
			by = "what " + off.File + " says"
		}
		l.warn(top.find("unsafe.clock_offset").pos, "unsafe.clock_offset: the clock is shifted by %s: expired certificates may be taken", by)
	}
}

// firstDir is the first of the folders that systemd separates by colons.
func firstDir(list string) string {
	for i := range len(list) {
		if list[i] == ':' {
			return list[:i]
		}
	}
	return list
}
