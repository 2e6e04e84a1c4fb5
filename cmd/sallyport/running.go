package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"sallyport/admin"
	"sallyport/config"
	"sallyport/posture"
)

// fits asks the running process whether a reload could give it what file says, and is
// an error where that takes another process. Who may become its user asks whether it
// could read all, too.
func fits(ctx context.Context, file *config.File, needs posture.Needs, at string) error {
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
	held := map[string]bool{}
	for _, b := range bound {
		held[spot(b)] = true
	}
	addrs := []config.Address{file.Metrics, file.Admin}
	for _, l := range file.Listeners {
		addrs = append(addrs, l.From)
	}
	for _, a := range addrs {
		if a.Port > 0 && a.Port < firstFree() && !held[spot(a.String())] {
			return a.String(), a.Port
		}
	}
	return "", 0
}

// spot is what of an address is bound: tcp:// may become tls://.
func spot(addr string) string {
	carrier, where, _ := strings.Cut(addr, "://")
	if (config.Address{Carrier: carrier}).Datagram() {
		return "udp " + where
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
