// Package demo shows every pattern at work on one machine: a plain server, a
// throw-away CA, and one listener a pattern. It checks itself through each, says
// what to try, and stays up until it is interrupted.
package demo

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"sallyport/build"
	"sallyport/config"
	"sallyport/flow"
	"sallyport/internal/ca"
	"sallyport/observe"
	"sallyport/proxy"
)

// station is one listener of the demo.
type station struct {
	pattern string
	port    uint16 // tried first, so that the lines to try are the same each time
	tls     bool   // towards clients
	what    string
}

var stations = []station{
	{"offload", 8441, true, "TLS in, plaintext out"},
	{"encrypt", 8442, false, "plaintext in, TLS out; the server's certificate is verified"},
	{"bridge", 8443, true, "TLS in, TLS out, clear in between"},
	{"pass-through", 8444, true, "routed by server name, never decrypted"},
}

// site is what the demo's certificate is for.
const site = "localhost"

// Run runs the demo until ctx ends, and writes what it shows to out. Flow
// records go to records.
func Run(ctx context.Context, out, records io.Writer) error {
	dir, err := os.MkdirTemp("", "sallyport-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := certificates(dir); err != nil {
		return err
	}
	backend, err := startBackend()
	if err != nil {
		return err
	}
	defer backend.Close()

	ports, err := freePorts()
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "demo.yaml")
	if err := os.WriteFile(file, []byte(configFor(backend.addr, ports)), 0o600); err != nil {
		return err
	}
	d := &demo{dir: dir, file: file, ports: ports, backend: backend.addr, out: out}
	return d.run(ctx, &visitors{Observer: &observe.Records{Log: observe.NewLogger(records, "text", slog.LevelInfo)}})
}

// visitors shows the flows that are not the demo's own.
type visitors struct {
	flow.Observer
	last, own atomic.Uint64 // ids
}

func (v *visitors) Begin(f *flow.Flow) {
	v.last.Store(f.ID)
	v.Observer.Begin(f)
}

func (v *visitors) End(f *flow.Flow, e *flow.Error) {
	if own := v.own.Load(); own != 0 && f.ID > own {
		v.Observer.End(f, e)
	}
}

type demo struct {
	dir, file, backend string
	ports              []uint16
	out                io.Writer
}

func (d *demo) run(ctx context.Context, seen *visitors) error {
	parsed, err := config.Load(d.file, config.Options{Env: os.Getenv})
	if err != nil {
		return err
	}
	program, err := build.New(parsed, build.Options{Env: os.Getenv})
	if err != nil {
		return err
	}
	defer program.Close()
	if _, err := program.Bind(ctx, nil); err != nil {
		return err
	}
	engine := &proxy.Engine{Observer: seen}
	var serving sync.WaitGroup
	for _, l := range program.Listeners {
		serving.Go(func() { engine.Serve(ctx, l.Acceptor, &l.Current) })
	}
	failed := d.show(ctx)
	seen.own.Store(seen.last.Load())
	if failed == nil {
		fmt.Fprintln(d.out, "\nEverything stays up until you press Ctrl-C. Each connection writes one record below.")
		<-ctx.Done()
	}
	program.Unbind()
	serving.Wait()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	engine.Drain(now)
	return failed
}

// show checks each pattern once and says what to try.
func (d *demo) show(ctx context.Context) error {
	fmt.Fprintf(d.out, "A plain server stands at tcp://%s. In front of it, one sallyport with a listener a pattern,\nas %s says.\n\n", d.backend, d.file)
	table := tabwriter.NewWriter(d.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "PATTERN\tLISTENS AT\tWHAT IT DOES\tCHECKED")
	var failed error
	for i, s := range stations {
		verdict, err := d.check(ctx, s, d.ports[i])
		if err != nil {
			verdict = "FAILED: " + err.Error()
			failed = fmt.Errorf("the demo could not get through its own %s listener: %w", s.pattern, err)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", s.pattern, from(s, d.ports[i]), s.what, verdict)
	}
	table.Flush()
	fmt.Fprintln(d.out, "\nTry:")
	ca := filepath.Join(d.dir, "ca.pem")
	for i, s := range stations {
		fmt.Fprintf(d.out, "  # %s\n", s.pattern)
		if !s.tls {
			fmt.Fprintf(d.out, "  curl http://%s:%d/\n", site, d.ports[i])
			continue
		}
		fmt.Fprintf(d.out, "  curl --cacert %s https://%s:%d/\n", ca, site, d.ports[i])
		if s.pattern == "bridge" {
			fmt.Fprintf(d.out, "  openssl s_client -connect %s:%d -servername %s -CAfile %s -brief\n", site, d.ports[i], site, ca)
		}
	}
	return failed
}

func from(s station, port uint16) string {
	if s.tls {
		return fmt.Sprintf("tls://127.0.0.1:%d", port)
	}
	return fmt.Sprintf("tcp://127.0.0.1:%d", port)
}

// configFor is the file of the demo. The offload listener is the TLS server of
// the other three.
func configFor(backend string, ports []uint16) string {
	return fmt.Sprintf(`defaults:
  cert: site.pem
  key: site.key
listeners:
  - name: offload
    from: %s
    to: tcp://%s
  - name: encrypt
    from: %s
    to: {addr: "tls://127.0.0.1:%d", name: %s, ca: ca.pem}
  - name: bridge
    from: %s
    to: {addr: "tls://127.0.0.1:%d", name: %s, ca: ca.pem}
  - name: pass-through
    from: %s
    routes:
      - match: {sni: %s}
        action: splice
        to: tcp://127.0.0.1:%d
`, from(stations[0], ports[0]), backend,
		from(stations[1], ports[1]), ports[0], site,
		from(stations[2], ports[2]), ports[0], site,
		from(stations[3], ports[3]), site, ports[0])
}

func certificates(dir string) error {
	authority, err := ca.New(time.Now(), ca.CN("Sallyport demo CA"))
	if err != nil {
		return err
	}
	if _, err := authority.Write(dir, "ca"); err != nil {
		return err
	}
	leaf, err := authority.Leaf([]string{site, "127.0.0.1", "::1"})
	if err != nil {
		return err
	}
	_, _, err = leaf.Write(dir, "site")
	return err
}

func freePorts() ([]uint16, error) {
	var ports []uint16
	for _, s := range stations {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err != nil {
			l, err = net.Listen("tcp", "127.0.0.1:0")
		}
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are chosen, so that they differ
		ports = append(ports, uint16(l.Addr().(*net.TCPAddr).Port))
	}
	return ports, nil
}

type backend struct {
	http.Server
	addr string
}

func startBackend() (*backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &backend{addr: l.Addr().String()}
	b.ReadHeaderTimeout = 10 * time.Second
	b.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s, from the plain server behind sallyport\n", greeting)
	})
	go b.Serve(l)
	return b, nil
}

const greeting = "hello"
