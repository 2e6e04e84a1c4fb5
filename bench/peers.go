package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// job is what a proxy is to do: a pair of ends and the certificates for it.
type job struct {
	pattern string // offload, encrypt, bridge, splice; dtls, udp
	cert    string // file with certificate and key
	certs   string // folder of them, in place of cert
	to      string // host:port
	listen  string
	reloads bool // it will be told to
}

// peer is a proxy that can be measured. config gives the command that runs it,
// or nil where it cannot do the job.
type peer struct {
	name   string
	config func(b *bench, dir string, j job) ([]string, error)
	reload syscall.Signal
}

var peers = []peer{
	{"sallyport", sallyport, syscall.SIGHUP},
	{"haproxy", haproxy, syscall.SIGUSR2},
	{"nginx", nginx, syscall.SIGHUP},
	{"hitch", hitch, syscall.SIGHUP},
	{"stunnel", stunnel, syscall.SIGHUP},
	{"socat", socat, 0},
}

const benchName = "bench.test"

func sallyport(b *bench, dir string, j job) ([]string, error) {
	from, to := "tls://"+j.listen, "tcp://"+j.to
	var flags []string
	switch j.pattern {
	case "offload":
		flags = []string{"--cert", j.cert}
		if j.certs != "" {
			flags = []string{"--cert", j.certs}
		}
	case "encrypt":
		from, to = "tcp://"+j.listen, "tls://"+j.to
		flags = []string{"--to-ca", b.caFile, "--to-name", benchName}
	case "bridge":
		to = "tls://" + j.to
		flags = []string{"--cert", j.cert, "--to-ca", b.caFile, "--to-name", benchName, "--alpn", "x"}
	case "splice":
		flags = []string{"--action", "splice"}
	case "dtls":
		from, to = "dtls://"+j.listen, "udp://"+j.to
		flags = []string{"--cert", j.cert}
	case "udp":
		from, to = "udp://"+j.listen, "udp://"+j.to
	}
	return append([]string{b.sallyport, "proxy", from, to, "--log-level", "error"}, flags...), nil
}

func haproxy(b *bench, dir string, j job) ([]string, error) {
	if j.datagrams() {
		return nil, nil
	}
	bind, server := "ssl crt "+j.cert, ""
	if j.certs != "" {
		bind = "ssl crt " + j.certs
	}
	verified := fmt.Sprintf("ssl verify required ca-file %s sni str(%s) verifyhost %s", b.caFile, benchName, benchName)
	rules := ""
	switch j.pattern {
	case "encrypt":
		bind, server = "", verified
	case "bridge":
		server = verified
	case "splice":
		bind = ""
		rules = "\n  tcp-request inspect-delay 5s\n  tcp-request content accept if { req.ssl_hello_type 1 }"
	}
	conf := fmt.Sprintf(`global
  nbthread 2
  maxconn 9000
  ssl-default-bind-options ssl-min-ver TLSv1.2
  tune.ssl.default-dh-param 2048
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen l
  bind %s %s%s
  server s %s %s
`, j.listen, bind, rules, j.to, server)
	file := filepath.Join(dir, "haproxy.cfg")
	args := []string{"haproxy", "-db", "-f", file}
	if j.reloads {
		args = append(args, "-W") // the one mode that can; it costs a process more
	}
	return args, os.WriteFile(file, []byte(conf), 0o600)
}

func nginx(b *bench, dir string, j job) ([]string, error) {
	if j.certs != "" || j.pattern == "dtls" {
		return nil, nil // one server block a certificate, and no SNI for stream in this version
	}
	module, _ := filepath.Glob("/usr/lib/nginx/modules/ngx_stream_module.so")
	load := ""
	if len(module) > 0 {
		load = "load_module " + module[0] + ";\n"
	}
	inbound := fmt.Sprintf("listen %s ssl;\n ssl_certificate %s; ssl_certificate_key %s; ssl_session_tickets on; ssl_protocols TLSv1.2 TLSv1.3;", j.listen, j.cert, j.cert)
	plain := fmt.Sprintf("listen %s;", j.listen)
	outbound := fmt.Sprintf("proxy_ssl on; proxy_ssl_verify on; proxy_ssl_trusted_certificate %s; proxy_ssl_server_name on; proxy_ssl_name %s; proxy_ssl_protocols TLSv1.2 TLSv1.3;", b.caFile, benchName)
	var block string
	switch j.pattern {
	case "offload":
		block = inbound
	case "encrypt":
		block = plain + outbound
	case "bridge":
		block = inbound + outbound
	case "splice":
		block = plain + "ssl_preread on;"
	case "udp":
		// Without reuseport each of the workers would hold a session for every client.
		block = fmt.Sprintf("listen %s udp reuseport;", j.listen)
	}
	conf := fmt.Sprintf(`%sdaemon off; worker_processes 2; pid %s/nginx.pid; error_log stderr crit;
events { worker_connections 12000; }
stream { proxy_timeout 1h; tcp_nodelay on; server { %s proxy_pass %s; } }
`, load, dir, block, j.to)
	file := filepath.Join(dir, "nginx.conf")
	return []string{"nginx", "-c", file, "-p", dir}, os.WriteFile(file, []byte(conf), 0o600)
}

func hitch(b *bench, dir string, j job) ([]string, error) {
	if j.pattern != "offload" {
		return nil, nil
	}
	host, port, err := net.SplitHostPort(j.listen)
	if err != nil {
		return nil, err
	}
	toHost, toPort, err := net.SplitHostPort(j.to)
	if err != nil {
		return nil, err
	}
	pem := fmt.Sprintf("pem-file = %q", j.cert)
	if j.certs != "" {
		pem = fmt.Sprintf("pem-dir = %q", j.certs)
	}
	conf := fmt.Sprintf("frontend = \"[%s]:%s\"\nbackend = \"[%s]:%s\"\n%s\nworkers = 2\ndaemon = off\nuser = \"nobody\"\nquiet = on\ntls-protos = TLSv1.2 TLSv1.3\n", host, port, toHost, toPort, pem)
	file := filepath.Join(dir, "hitch.conf")
	return []string{"hitch", "--config", file}, os.WriteFile(file, []byte(conf), 0o600)
}

func stunnel(b *bench, dir string, j job) ([]string, error) {
	if j.pattern != "offload" && j.pattern != "encrypt" || j.certs != "" {
		return nil, nil
	}
	section := "cert = " + j.cert
	if j.pattern == "encrypt" {
		section = fmt.Sprintf("client = yes\nCAfile = %s\nverifyChain = yes\ncheckHost = %s\nsni = %s", b.caFile, benchName, benchName)
	}
	conf := fmt.Sprintf("foreground = yes\npid =\ndebug = err\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n[s]\naccept = %s\nconnect = %s\n%s\n", j.listen, j.to, section)
	file := filepath.Join(dir, "stunnel.conf")
	return []string{"stunnel4", file}, os.WriteFile(file, []byte(conf), 0o600)
}

// proxy is one that runs.
type proxy struct {
	peer peer
	job  job
	cmd  *exec.Cmd
	addr string
	log  *strings.Builder
}

// start runs p for j and waits until it accepts.
func (b *bench) start(p peer, j job) (*proxy, error) {
	addr, err := freeAddr(j.datagrams())
	if err != nil {
		return nil, err
	}
	j.listen = addr
	dir, err := os.MkdirTemp(b.dir, p.name)
	if err != nil {
		return nil, err
	}
	args, err := p.config(b, dir, j)
	if err != nil || args == nil {
		return nil, err
	}
	r := &proxy{peer: p, job: j, addr: addr, log: &strings.Builder{}}
	r.cmd = exec.Command(args[0], args[1:]...)
	r.cmd.Stderr = r.log
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	for start := time.Now(); time.Since(start) < 90*time.Second; time.Sleep(time.Millisecond) {
		if accepts(addr, j.datagrams()) {
			return r, nil
		}
		if r.cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
	}
	r.stop()
	return nil, fmt.Errorf("%s did not come up:\n%s", p.name, r.log)
}

func (p *proxy) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

func accepts(addr string, datagrams bool) bool {
	if datagrams {
		_, bound := udpDrops(addr)
		return bound
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return false
	}
	closing(c)
	return true
}

func freeAddr(datagrams bool) (string, error) {
	if datagrams {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			return "", err
		}
		defer closing(c)
		return c.LocalAddr().String(), nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer closing(l)
	return l.Addr().String(), nil
}
