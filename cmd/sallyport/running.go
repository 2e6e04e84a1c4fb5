package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"

	"sallyport/admin"
	"sallyport/config"
	"sallyport/posture"
	"sallyport/transport"
)

// fits asks the running process whether a reload could give it what file says, and is
// an error where that takes another process. Who may become its user asks whether it
// could read all, too.
func fits(ctx context.Context, path string, file *config.File, needs posture.Needs, at string) error {
	addr := file.Admin
	if at != "" || addr == (config.Address{}) {
		var err error
		if addr, err = config.ParseAdmin(cmp.Or(at, "unix:"+defaultSocket(os.Getenv("RUNTIME_DIRECTORY")))); err != nil {
			return err
		}
	}
	body, err := admin.NewClient(addr).Get(ctx, "/sandbox")
	if err != nil {
		return failure{err, exitFailed}
	}
	var has admin.Sandbox
	if err := json.Unmarshal(body, &has); err != nil {
		return failure{fmt.Errorf("reading the answer: %w", err), exitFailed}
	}
	if err := lacks(&has, file, needs); err != nil {
		return failure{err, exitFailed}
	}
	if err := busy(ctx, file, has.Bound); err != nil {
		return failure{err, exitFailed}
	}
	now := stays(file)
	if file.StateDir == "" && has.StateDirectory != "" {
		now["state_dir"] = has.StateDirectory
	}
	if kept := needsRestart(has.Stays, now); len(kept) > 0 {
		return failure{fmt.Errorf("%s: good, but %s", path, strings.Join(kept, "; ")), exitFailed}
	}
	return nil
}

func lacks(has *admin.Sandbox, file *config.File, needs posture.Needs) error {
	needs.Keeps = nil // which stays what it was
	sandbox := posture.Sandbox{Landlock: has.Landlock, Folders: posture.Folders(has.Folders)}
	if err := outside(&sandbox, needs); err != nil {
		return err
	}
	if has.Dropped {
		if place, port := privileged(file, has.Bound); place != "" {
			return fmt.Errorf("%w: port %d of %s needs CAP_NET_BIND_SERVICE, which it has given up", errRestart, port, place)
		}
	}
	if os.Geteuid() != 0 || has.UID == 0 && !has.Dropped {
		return nil
	}
	u := posture.User{Name: strconv.Itoa(has.UID), UID: has.UID, GID: has.GID, Groups: has.Groups}
	back, err := u.Assume()
	if err != nil {
		return err
	}
	err = needs.Denied(u)
	return cmp.Or(back(), err)
}

// privileged gives the first address of file that only who may bind it could add to
// those that are bound.
func privileged(file *config.File, bound []string) (place string, port uint16) {
	for _, a := range fresh(file, bound) {
		if a.Port < firstFree() {
			return a.String(), a.Port
		}
	}
	return "", 0
}

// busy binds each address of file that a reload would, and closes it at once. One that
// only this process may not bind is for the running one to say.
func busy(ctx context.Context, file *config.File, bound []string) error {
	for _, a := range fresh(file, bound) {
		w := transport.Where{Host: a.Host, Port: a.Port}
		var c io.Closer
		var err error
		if !a.Datagram() {
			c, err = transport.Window(ctx, w, 0)
		} else if c, err = new(net.ListenConfig).ListenPacket(ctx, "udp", w.String()); err != nil {
			err = fmt.Errorf("listening on %s: %w", a, err)
		}
		if err == nil {
			c.Close()
		} else if !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("a reload would not do: %w", err)
		}
	}
	return nil
}

// fresh are the addresses with a port of file that are not bound.
func fresh(file *config.File, bound []string) (addrs []config.Address) {
	held := map[string]bool{}
	for _, b := range bound {
		held[spot(b)] = true
	}
	all := []config.Address{file.Metrics, file.Admin}
	for _, l := range file.Listeners {
		all = append(all, l.From)
	}
	for _, a := range all {
		if a.Port > 0 && !held[spot(a.String())] {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// spot is what of an address is bound: tcp:// may become tls://, while a socket of
// datagrams is of its kind.
func spot(addr string) string {
	carrier, where, _ := strings.Cut(addr, "://")
	if (config.Address{Carrier: carrier}).Datagram() {
		return addr
	}
	return "tcp " + where
}

// firstFree is the lowest port that everybody may bind (ip(7)).
func firstFree() uint16 {
	const usual = 1024
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return usual
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	if err != nil {
		return usual
	}
	return uint16(n)
}
