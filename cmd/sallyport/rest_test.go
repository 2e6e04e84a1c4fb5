package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"sallyport/internal/testnet"
)

// restingConns is how many connections of the program wait without a goroutine: as
// the kernel tells of the poller that they wait in, which is asked for each one's
// next event alone (EPOLLONESHOT | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLIN).
func restingConns(t testing.TB, p *testnet.Program) (n int) {
	t.Helper()
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range infos {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		n += len(armed.FindAll(text, -1))
	}
	return n
}

var armed = regexp.MustCompile(`(?m)^tfd: +\d+ events: 40002019 `)

func waitResting(t testing.TB, p *testnet.Program, want int) {
	t.Helper()
	for end := time.Now().Add(testnet.Patience); ; time.Sleep(20 * time.Millisecond) {
		n := restingConns(t, p)
		if n == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d connections rest, want %d", n, want)
		}
	}
}

// Flows that have gone to rest, and woken and rested again, move and end in the
// seven ways like any other.
func TestLinearPathAfterRest(t *testing.T) {
	s := newSite(t)
	ways := append(patterns, struct {
		name    string
		in, out bool
	}{"plain", false, false})
	for _, p := range ways {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := startWay(t, s, p.in, p.out)
			first := bytesOf(9, 4)
			if p.name == "plain" {
				first = bytesOf(9, 300<<10) // from there on it is spliced
			}
			for _, version := range bothVersions {
				var clients, servers []*peer
				swapAll := func() {
					for i := range clients {
						swap(t, clients[i], servers[i], first)
						swap(t, servers[i], clients[i], first)
					}
				}
				for range linear {
					client, server := w.pair(t, version)
					clients, servers = append(clients, client), append(servers, server)
				}
				for range 2 {
					swapAll()
					waitResting(t, w.Program, 2*len(linear))
				}
				for i, row := range linear {
					client, server := clients[i], servers[i]
					if row.needs == "in" && !p.in || row.needs == "out" && !p.out {
						client.reset()
						w.record(client)
						continue
					}
					t.Run(tls.VersionName(version)+"/"+row.name, func(t *testing.T) {
						row.play(t, client, server)
						r := w.record(client)
						wantRecord(t, r, row.reason, row.stage)
						if up := int(r.Num("up")) - 2*len(first); row.up >= 0 && up != row.up {
							t.Errorf("up is %d, want %d", up, row.up)
						}
						if down := int(r.Num("down")) - 2*len(first); row.down >= 0 && down != row.down {
							t.Errorf("down is %d, want %d", down, row.down)
						}
					})
				}
				waitResting(t, w.Program, 0)
			}
		})
	}
}
