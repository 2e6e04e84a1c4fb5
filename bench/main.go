// Command bench measures what a TLS proxy costs, beside the proxies in common
// use, in one run on loopback: `make bench`, or `make bench ROWS=handshake`.
//
// The figure is the proxy's own: CPU time of its processes per unit of work, and
// proportional set size per idle connection. Both hold on a shared machine,
// where time by the clock does not. The rounds of all peers are interleaved, and
// medians are shown with their spread.
//
// `bench soak -for 10m` (make soak) measures nothing beside others: it runs all
// kinds of work at once through sallyport with faults at random, and fails where that leaves memory,
// descriptors or goroutines behind, or changes a byte.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "backend" {
		serveBackend(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "soak" {
		if err := soakCommand(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "soak:", err)
			os.Exit(1)
		}
		return
	}
	rows := flag.String("rows", "", "regular expression over the rows to run")
	peers := flag.String("peers", "", "regular expression over the proxies to run")
	rounds := flag.Int("rounds", 5, "rounds of each row")
	bin := flag.String("sallyport", "bin/sallyport", "the program")
	out := flag.String("o", "", "write the table here as well")
	flag.Parse()
	if err := run(*rows, *peers, *rounds, *bin, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rowPattern, peerPattern string, rounds int, bin, out string) error {
	rowMatch, err := regexp.Compile(rowPattern)
	if err != nil {
		return err
	}
	peerMatch, err := regexp.Compile(peerPattern)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, sallyport: bin, rounds: rounds, costs: costs{}}
	if err := b.prepare(); err != nil {
		return err
	}
	defer b.stopBackends()

	var results []result
	for _, r := range slices.Concat(rows, datagramRows, []row{verifierRow}) {
		if !rowMatch.MatchString(r.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s\n", r.name)
		res, err := b.row(r, peerMatch)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		results = append(results, res)
	}
	text := reports(results)
	fmt.Print(text)
	if out == "" {
		return nil
	}
	return os.WriteFile(out, []byte(heading()+text), 0o644)
}

func heading() string {
	cpu := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(b), "model name\t: "); ok {
			cpu, _, _ = strings.Cut(rest, "\n")
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf(`# Benchmarks

Written by `+"`make bench`"+` on %s: %s, %d cores, Linux %s, %s.
%s

Each figure is the median of its rounds, with the least and the most behind it. The ratio is Sallyport's to the best other proxy in
that row; lower is better. Figures of different runs do not compare: the machine is shared.

The bound is the cryptography that the row cannot do without, in its unit: Go's own signatures, key agreements and AES-GCM passes, in
CPU time, measured in the same run by Go's benchmarks; no kernel, no TLS messages, no hashes. It is what Sallyport could at best cost
with Go's cryptography, and no bound for OpenSSL's. Where sessions are kept, it is that of a resumption.

Handshakes towards servers are full ones, but where the row says that sessions are kept; such a server shows one P-256 certificate,
directly below its CA.

Under reloads, each proxy is told to read its files again after every %d connections, by its own signal; HAProxy runs in its
master-worker mode for that. The times are of the connections that did not fail, from dialling to the answer.

Nothing of a long run is in this table. `+"`make soak`"+` runs everything at once for ten minutes (handshakes full and resumed, bytes both
ways compared by SHA-256, echoes, connections aborted at seven points, 400 idle ones that come and go, DTLS, with the faults of [faults.md](faults.md) at random) and fails where memory
still grows by more than 1 MiB an hour at its end, where descriptors or goroutines are left, where a connection fails, or where one
byte came out changed.

`, time.Now().UTC().Format("2006-01-02"), cpu, runtime.NumCPU(), strings.TrimSpace(string(kernel)), runtime.Version(), versions(), reloadEvery)
}

func versions() string {
	var list []string
	for _, v := range [][]string{{"haproxy", "-v"}, {"nginx", "-v"}, {"hitch", "--version"}, {"stunnel4", "-version"}, {"socat", "-V"}} {
		b, _ := exec.Command(v[0], v[1:]...).CombinedOutput()
		for _, line := range strings.Split(string(b), "\n") {
			if m := regexp.MustCompile(`(?i)(haproxy version|nginx/|hitch|stunnel|socat version) ?[0-9][^ ]*`).FindString(line); m != "" {
				list = append(list, m)
				break
			}
		}
	}
	return "Beside " + strings.Join(list, ", ") + "."
}

func closing(c io.Closer) { _ = c.Close() }
