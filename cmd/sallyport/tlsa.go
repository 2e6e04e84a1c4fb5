package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport/build"
	"sallyport/config"
	"sallyport/credential"
	"sallyport/dane"
	"sallyport/tool/probe"
	"sallyport/tool/tlsa"
)

// tlsaFlags are those of tlsa alone.
type tlsaFlags struct {
	config                    string
	usage, selector, matching uint8
	generic, check, udp, json bool
}

func newTLSA() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tlsa CERT|tls://HOST:PORT|dtls://HOST:PORT [HOST:PORT] [flags]",
		Short: "Print the TLSA records (DANE) of certificates, and check those in DNS",
		Long: `Print the TLSA records (DANE) of certificates, and check those in DNS.

The certificates are in the file CERT, or are what the server at tls://HOST:PORT
or dtls://HOST:PORT shows, or with -c what the listeners of a file show; [HOST:PORT] is where clients
find them, HOST alone the port of the listener, or 443. With --check nothing is
printed for a zone: the records that are published are held against the
certificates, and for each it is said from when on it is safe to serve. The exit
code is then 0 where every one passes.`,
		Example: `  sallyport tlsa site.pem mail.example:465
  sallyport tlsa -c sallyport.yaml --check
  sallyport tlsa next.pem mail.example:465 --check && systemctl reload sallyport`,
		Args: cobra.MaximumNArgs(2),
	}
	var o tlsaFlags
	fs := cmd.Flags()
	fs.StringVarP(&o.config, "config", "c", "", "take the certificates of `FILE`'s listeners")
	fs.Uint8Var(&o.usage, "usage", uint8(dane.DANEEE), "what the record is of: 3 the certificate, 2 its issuer, 1 and 0 the same beside PKIX")
	fs.Uint8Var(&o.selector, "selector", uint8(dane.SPKI), "0 all of it, 1 its public key, which a renewal may keep")
	fs.Uint8Var(&o.matching, "matching", uint8(dane.SHA256), "0 as it is, 1 its SHA-256, 2 its SHA-512")
	fs.BoolVar(&o.generic, "generic", false, "write records for servers that do not know TLSA (RFC 3597)")
	fs.BoolVar(&o.check, "check", false, "hold what is published against the certificates")
	fs.BoolVar(&o.udp, "udp", false, "the service is one of UDP (DTLS)")
	fs.BoolVar(&o.json, "json", false, "with --check, write JSON, a report a service")
	flags := config.NewFlags(fs, config.OfServer)
	completeValues(cmd)
	groupFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		places, file, err := o.places(ctx, flags, args)
		if err != nil {
			return err
		}
		form := tlsa.Form{Usage: dane.Usage(o.usage), Selector: dane.Selector(o.selector), Matching: dane.Matching(o.matching), Generic: o.generic}
		if o.check {
			return o.checked(ctx, cmd, file, places, form)
		}
		last := ""
		for _, p := range places {
			line, err := form.Line(p)
			if err != nil {
				return failure{err, exitFailed}
			}
			if line != last {
				fmt.Fprintln(cmd.OutOrStdout(), line)
			}
			last = line
		}
		return nil
	}
	return cmd
}

// places are the certificates with where they are found, and the file that says whom
// to ask for records.
func (o *tlsaFlags) places(ctx context.Context, flags *config.Flags, args []string) ([]*tlsa.Place, *config.File, error) {
	if o.config != "" {
		if len(args) > 1 {
			return nil, nil, errors.New("with -c the certificates are those of the file, so that only HOST or HOST:PORT is left to name")
		}
		host, port, err := findable(strings.Join(args, ""), 0)
		if err != nil {
			return nil, nil, err
		}
		file, err := flags.Load(o.config, options())
		if err != nil {
			return nil, nil, err
		}
		shown, err := build.ShownBy(file, build.Options{Env: os.Getenv})
		if err != nil {
			return nil, nil, failure{err, exitFailed}
		}
		places, err := o.ofRoutes(shown, host, port)
		return places, file, err
	}
	if len(args) == 0 {
		return nil, nil, errors.New("CERT is missing\nhint: sallyport tlsa site.pem mail.example:465, or -c FILE")
	}
	at := strings.Join(args[1:], "")
	from, transport := "tcp://127.0.0.1:0", "tcp"
	remote, served := strings.CutPrefix(args[0], "tls://")
	if !served {
		if remote, served = strings.CutPrefix(args[0], "dtls://"); served {
			from, transport = "udp://127.0.0.1:0", "udp"
		}
	}
	if served && at == "" {
		at = remote
	}
	host, port, err := findable(at, 443)
	if err != nil {
		return nil, nil, err
	}
	p := &tlsa.Place{From: filepath.Base(args[0]), Host: host, Port: port, Transport: o.transport(transport)}
	to := args[0]
	if !served {
		to = "tls://localhost:1" // nobody goes there
	}
	file, err := flags.File(from, []string{to}, options())
	if err != nil {
		return nil, nil, err
	}
	if served {
		p.From = "what " + remote + " shows"
		probers, program, err := build.Probers(file, build.Options{Env: os.Getenv})
		if err != nil {
			return nil, nil, failure{err, exitFailed}
		}
		defer program.Close()
		if p.Chain, err = probe.Chain(ctx, probers[0]); err != nil {
			return nil, nil, failure{err, exitFailed}
		}
	} else if p.Chain, err = certificates(args[0]); err != nil {
		return nil, nil, failure{err, exitFailed}
	}
	return []*tlsa.Place{p}, file, nil
}

func (o *tlsaFlags) transport(known string) string {
	if o.udp {
		return "udp"
	}
	return known
}

// ofRoutes gives each certificate a place for each of its names; where a host is named,
// those that are for it, or all where none is.
func (o *tlsaFlags) ofRoutes(shown []build.Shown, host string, port uint16) ([]*tlsa.Place, error) {
	if len(shown) == 0 {
		return nil, errors.New("no listener of the file shows a certificate of its own")
	}
	var places, others []*tlsa.Place
	for _, s := range shown {
		hosts := s.Chain[0].DNSNames
		if host != "" {
			hosts = []string{host}
		}
		for _, h := range hosts {
			p := &tlsa.Place{From: fmt.Sprintf("route %s (%s)", s.Route, s.File), Host: h, Port: s.Port, Transport: o.transport(s.Transport), Chain: s.Chain}
			if port != 0 {
				p.Port = port
			}
			switch {
			case strings.HasPrefix(h, "*"):
				continue // a record needs a name of its own
			case p.Port == 0:
				return nil, fmt.Errorf("route %s: the port that clients use is not known\nhint: name it: HOST:PORT", s.Route)
			case s.Chain[0].VerifyHostname(h) == nil:
				places = append(places, p)
			default:
				others = append(others, p)
			}
		}
	}
	if len(places) == 0 {
		places = others
	}
	if len(places) == 0 {
		return nil, errors.New("the certificates have no names but with `*`\nhint: name the HOST that clients ask for")
	}
	return places, nil
}

func (o *tlsaFlags) checked(ctx context.Context, cmd *cobra.Command, file *config.File, places []*tlsa.Place, form tlsa.Form) error {
	r, err := build.Resolver(file, build.Options{Env: os.Getenv})
	if err != nil {
		return failure{err, exitFailed}
	}
	var order []string
	by := map[string][]*tlsa.Place{}
	for _, p := range places {
		if p.Host == "" {
			return errors.New("where clients find the certificate must be known to look records up\nhint: sallyport tlsa CERT HOST:PORT --check")
		}
		at := dane.RecordName(p.Host, p.Port, p.Transport)
		if by[at] == nil {
			order = append(order, at)
		}
		by[at] = append(by[at], p)
	}
	good := true
	for _, at := range order {
		report := tlsa.Check(ctx, r, by[at], form, time.Now())
		good = good && report.Good()
		if !o.json {
			fmt.Fprint(cmd.OutOrStdout(), report.Text())
			continue
		}
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		if err := e.Encode(report); err != nil {
			return failure{err, exitFailed}
		}
	}
	if !good {
		return failure{errors.New("not every certificate passes by its records"), exitFailed}
	}
	return nil
}

// findable reads HOST:PORT, or HOST alone.
func findable(text string, usual uint16) (host string, port uint16, err error) {
	if text == "" {
		return "", 0, nil
	}
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, usual
	} else {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("%q is no port", number)
		}
		port = uint16(n)
	}
	if net.ParseIP(strings.Trim(host, "[]")) != nil || host == "" || strings.ContainsAny(host, "/:* ") {
		return "", 0, fmt.Errorf("%q is no name that records can be at\nhint: HOST:PORT, as clients know the server", host)
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), port, nil
}

// certificates reads a chain, leaf first, from a PEM file, or one in DER.
func certificates(location string) ([]*x509.Certificate, error) {
	data, _, err := credential.Read(location, os.Getenv)
	if err != nil {
		return nil, err
	}
	if c, err := x509.ParseCertificate(data); err == nil {
		return []*x509.Certificate{c}, nil
	}
	var chain []*x509.Certificate
	for b, rest := pem.Decode(data); b != nil; b, rest = pem.Decode(rest) {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", location, err)
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s has no certificate", location)
	}
	return chain, nil
}
