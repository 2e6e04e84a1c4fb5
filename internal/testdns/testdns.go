package testdns

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// T is what is used of a *testing.T.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	TempDir() string
	Cleanup(func())
}

// Records are what a zone has, in the form of zone files, by zone. A zone is one of
// kinds, and is there if it is named; each has its SOA, its NS and ns without being told.
type Records map[string]string

// kinds says how each zone is signed.
var kinds = map[string]string{
	".":            "nsec",
	"test":         "nsec3",
	"example.test": "nsec",
	"nsec3.test":   "nsec3",
	"optout.test":  "optout", // NSEC3 that leave out what is not signed

	"sub.example.test": "unsigned",
	"sub.nsec3.test":   "unsigned",
	"sub.optout.test":  "unsigned",

	"nsd.test":      "ldns",     // signed by ldns-signzone, served by nsd
	"insecure.test": "unsigned", // and so says its parent
	"bogus.test":    "tampered", // one octet of each TLSA, A and CNAME differs from what was signed
	"expired.test":  "expired",
	"future.test":   "future",
	"lame.test":     "lame", // its server fails
}

// DNS is a running one.
type DNS struct {
	Resolver string // of unbound, host:port
	Server   string // of bind, which has all zones but nsd.test
	Anchor   string // file with the DS records of the root
	TLS      string // of unbound, for DNS over TLS, where [Over] gives it a certificate

	t          T
	dir        string
	records    Records
	zones      []string // children before parents
	named, nsd *exec.Cmd
	unbound    *exec.Cmd
	cert, key  string
}

// Option changes how a DNS is started.
type Option func(*DNS)

// Over has the resolver speak DNS over TLS as well, with that certificate.
func Over(cert, key string) Option { return func(d *DNS) { d.cert, d.key = cert, key } }

// Start signs, serves and resolves until the test ends.
func Start(t T, records Records, options ...Option) *DNS {
	t.Helper()
	for z := range records {
		if kinds[z] == "" {
			t.Fatalf("there is no zone %q", z)
		}
	}
	d := &DNS{t: t, dir: t.TempDir(), records: records}
	for _, o := range options {
		o(d)
	}
	for z := range records {
		if z != "test" && z != "." {
			d.zones = append(d.zones, z)
		}
	}
	slices.SortFunc(d.zones, func(a, b string) int { return strings.Count(b, ".") - strings.Count(a, ".") })
	d.zones = append(d.zones, "test", ".")
	for _, z := range d.zones { // children first: their DS records go into the parent
		d.makeKeys(z)
		d.sign(z)
	}
	d.Anchor = d.file("dsset-.")
	d.serve()
	return d
}

func (d *DNS) file(name string) string { return filepath.Join(d.dir, name) }

func (d *DNS) write(name, text string) {
	d.t.Helper()
	if err := os.WriteFile(d.file(name), []byte(text), 0o644); err != nil {
		d.t.Fatalf("%v", err)
	}
}

func (d *DNS) run(name string, args ...string) string {
	d.t.Helper()
	cmd := exec.Command(tool(name), args...)
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		d.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// tool finds a program where Debian has it: servers are not on a user's PATH.
func tool(name string) string {
	for _, dir := range []string{"/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		if p := filepath.Join(dir, name); exists(p) {
			return p
		}
	}
	return name
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func fqdn(zone string) string { return strings.TrimSuffix(zone, ".") + "." }

func (d *DNS) makeKeys(zone string) {
	switch kinds[zone] {
	case "unsigned", "lame":
	case "ldns":
		ksk := d.run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", zone)
		zsk := d.run("ldns-keygen", "-a", "ECDSAP256SHA256", zone)
		d.write("keys-"+zone, ksk+" "+zsk)
		d.write("dsset-"+fqdn(zone), d.run("cat", ksk+".ds"))
	default:
		d.run("dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", zone)
		d.run("dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", zone)
	}
}

// serial grows with each signing; the servers reload by file, so it need not be read.
var serial = time.Now().Unix

func (d *DNS) text(zone string) string {
	var b strings.Builder
	ns := "ns." + strings.TrimPrefix(fqdn(zone), ".")
	fmt.Fprintf(&b, "$ORIGIN %s\n$TTL 1\n@ SOA %s h.test. %d 60 60 600 1\n@ NS %s\nns A 127.0.0.1\n", fqdn(zone), ns, serial(), ns)
	for _, child := range d.zones {
		if _, parent, _ := strings.Cut(fqdn(child), "."); child != "." && fqdn(parent) == fqdn(zone) {
			fmt.Fprintf(&b, "%s NS ns.%s\nns.%s A 127.0.0.1\n%s", fqdn(child), fqdn(child), fqdn(child), d.ds(child))
		}
	}
	b.WriteString(d.records[zone] + "\n")
	return b.String()
}

func (d *DNS) ds(zone string) string {
	data, err := os.ReadFile(d.file("dsset-" + fqdn(zone)))
	if err != nil {
		return ""
	}
	return string(data) + "\n"
}

// sign leaves the zone in the file zone-NAME.
func (d *DNS) sign(zone string) {
	d.t.Helper()
	in, out := "plain-"+zone, "zone-"+zone
	kind := kinds[zone]
	if kind == "lame" {
		return
	}
	d.write(in, d.text(zone))
	args := []string{"-q", "-S", "-P", "-o", fqdn(zone), "-f", out}
	switch kind {
	case "unsigned":
		d.write(out, d.text(zone))
		return
	case "ldns":
		keys, _ := os.ReadFile(d.file("keys-" + zone))
		d.run("ldns-signzone", append([]string{"-n", "-o", fqdn(zone), "-f", out, in}, strings.Fields(string(keys))...)...)
		return
	case "nsec3":
		args = append(args, "-3", "-")
	case "optout":
		args = append(args, "-3", "beef", "-A")
	case "expired":
		args = append(args, "-s", "20200101000000", "-e", "20200201000000")
	case "future":
		args = append(args, "-s", "20500101000000", "-e", "20510101000000")
	}
	d.run("dnssec-signzone", append(args, in)...)
	if kind == "tampered" {
		d.tamper(out)
	}
}

// tamper changes the records that tests ask for, and leaves their signatures.
func (d *DNS) tamper(file string) {
	data, err := os.ReadFile(d.file(file))
	if err != nil {
		d.t.Fatalf("%v", err)
	}
	var b bytes.Buffer
	inTLSA := false
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if slices.Contains(f, "RRSIG") {
			inTLSA = false
		} else if slices.Contains(f, "TLSA") {
			inTLSA = true
		}
		if i := slices.Index(f, "A"); i >= 0 && f[len(f)-1] == "127.0.0.1" {
			line = strings.Replace(line, "127.0.0.1", "127.0.0.9", 1)
		}
		if i := slices.Index(f, "CNAME"); i >= 0 && i < len(f)-1 && !slices.Contains(f, "RRSIG") {
			line = strings.Replace(line, f[i+1], "x."+f[i+1], 1)
		}
		if inTLSA && strings.Contains(line, ")") {
			inTLSA = false
			cut := strings.LastIndex(line, " )")
			last := map[bool]string{true: "1", false: "0"}[line[cut-1] == '0']
			line = line[:cut-1] + last + line[cut:]
		}
		b.WriteString(line)
	}
	d.write(file, b.String())
}

// forgotten is when a resolver is over what it had a TTL of one second for: it counts
// whole seconds, and the last one is good to its end.
const forgotten = 2 * time.Second

// Set changes what a zone has, and returns once the resolver says so, of every name.
func (d *DNS) Set(zone, records string) {
	d.t.Helper()
	d.records[zone] = records + fmt.Sprintf("\nserial TXT %d", time.Now().UnixNano())
	d.sign(zone)
	server := d.named
	if kinds[zone] == "ldns" {
		server = d.nsd
	}
	server.Process.Signal(syscall.SIGHUP)
	want := d.records[zone][strings.LastIndex(d.records[zone], " ")+1:]
	d.wait("the new zone", func(ctx context.Context, r *net.Resolver) error {
		got, err := r.LookupTXT(ctx, "serial."+fqdn(zone))
		if err == nil && (len(got) != 1 || got[0] != want) {
			err = fmt.Errorf("serial %q", got)
		}
		return err
	})
	time.Sleep(forgotten) // other records may have been asked for just before
}

// Kill ends the resolver.
func (d *DNS) Kill() {
	d.unbound.Process.Kill()
	d.unbound.Wait()
}

func (d *DNS) serve() {
	d.t.Helper()
	port, nsd, resolver := freePort(d.t), freePort(d.t), freePort(d.t)
	d.Server, d.Resolver = fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", resolver)
	var conf strings.Builder
	fmt.Fprintf(&conf, `options { directory %q; listen-on port %d { 127.0.0.1; }; listen-on-v6 { none; }; recursion no; notify no; minimal-responses yes;
pid-file none; session-keyfile none; dnssec-validation no; allow-transfer { none; }; };
controls {};
`, d.dir, port)
	for _, zone := range d.zones {
		if kinds[zone] != "ldns" {
			fmt.Fprintf(&conf, "zone %q { type primary; file %q; };\n", fqdn(zone), "zone-"+zone)
		}
	}
	d.write("named.conf", conf.String())
	d.write("nsd.conf", fmt.Sprintf(`server:
 ip-address: 127.0.0.1@%d
 zonesdir: %q
 username: ""
 chroot: ""
 pidfile: ""
 database: ""
 zonelistfile: %q
 xfrdfile: %q
 logfile: %q
 server-count: 1
remote-control:
 control-enable: no
zone:
 name: nsd.test
 zonefile: zone-nsd.test
`, nsd, d.dir, d.file("nsd.list"), d.file("nsd.xfrd"), d.file("nsd.log")))
	conf.Reset()
	conf.WriteString(d.unboundConf(resolver, port, nsd))
	if d.cert != "" {
		over := freePort(d.t)
		d.TLS = fmt.Sprintf("127.0.0.1:%d", over)
		fmt.Fprintf(&conf, "server:\n interface: 127.0.0.1@%d\n tls-port: %d\n tls-service-pem: %q\n tls-service-key: %q\n", over, over, d.cert, d.key)
	}
	d.write("unbound.conf", conf.String())
	d.named = d.start("named", "-g", "-c", d.file("named.conf"))
	if slices.Contains(d.zones, "nsd.test") {
		d.nsd = d.start("nsd", "-d", "-c", d.file("nsd.conf"))
	}
	d.unbound = d.start("unbound", "-d", "-d", "-p", "-c", d.file("unbound.conf"))
	for _, zone := range d.zones {
		switch kinds[zone] {
		case "nsec", "nsec3", "optout", "ldns", "unsigned": // the others never answer
			name := "ns." + strings.TrimPrefix(fqdn(zone), ".")
			d.wait(name, func(ctx context.Context, r *net.Resolver) error {
				_, err := r.LookupHost(ctx, name)
				return err
			})
		}
	}
}

// unboundConf has a stub for each zone, since no delegation can say a port.
func (d *DNS) unboundConf(port, named, nsd int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `server:
 interface: 127.0.0.1@%d
 directory: %q
 chroot: ""
 username: ""
 pidfile: ""
 use-syslog: no
 logfile: ""
 do-not-query-localhost: no
 do-ip6: no
 num-threads: 1
 local-zone: "test." nodefault
 trust-anchor-file: %q
 module-config: "validator iterator"
 infra-host-ttl: 1
 ede: yes
remote-control:
 control-enable: no
`, port, d.dir, d.Anchor)
	for _, zone := range d.zones {
		server := named
		if kinds[zone] == "ldns" {
			server = nsd
		}
		fmt.Fprintf(&b, "stub-zone:\n name: %q\n stub-addr: 127.0.0.1@%d\n", fqdn(zone), server)
	}
	return b.String()
}

func (d *DNS) start(name string, args ...string) *exec.Cmd {
	d.t.Helper()
	log, err := os.Create(d.file(name + ".out"))
	if err != nil {
		d.t.Fatalf("%v", err)
	}
	cmd := exec.Command(tool(name), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, log, log
	if err := cmd.Start(); err != nil {
		d.t.Fatalf("%v; scripts/deps installs it", err)
	}
	log.Close()
	d.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(3*time.Second, func() { cmd.Process.Kill() })
		defer timer.Stop()
		cmd.Wait()
	})
	return cmd
}

func (d *DNS) wait(what string, ok func(context.Context, *net.Resolver) error) {
	d.t.Helper()
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, d.Resolver)
	}}
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		err = ok(ctx, r)
		cancel()
		if err == nil {
			return
		}
	}
	d.t.Fatalf("waiting for %s: %v\n%s", what, err, d.logs())
}

func (d *DNS) logs() string {
	var b strings.Builder
	for _, name := range []string{"named.out", "nsd.out", "nsd.log", "unbound.out"} {
		f, err := os.Open(d.file(name))
		if err != nil {
			continue
		}
		data, _ := io.ReadAll(io.LimitReader(f, 1<<20))
		f.Close()
		if len(data) > 2000 {
			data = data[len(data)-2000:]
		}
		fmt.Fprintf(&b, "-- %s\n%s\n", name, data)
	}
	return b.String()
}

// freePort gives a port that is free for UDP and TCP now, below those that the kernel
// gives to whoever dials.
func freePort(t T) int {
	t.Helper()
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(20000))
		if err != nil {
			t.Fatalf("%v", err)
		}
		port := 12000 + int(n.Int64())
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		if u, err := net.ListenPacket("udp", addr); err == nil {
			u.Close()
			return port
		}
	}
	t.Fatalf("no port is free for both TCP and UDP")
	return 0
}
