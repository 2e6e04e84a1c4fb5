package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/build"
	"sallyport/config"
	"sallyport/tool/probe"
)

func newProbe(warnings []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe [TO] [flags]",
		Short: "Say what a TLS or DTLS server is like, and what each verifier says of it",
		Long: `Say what a TLS or DTLS server is like: which versions and key exchange groups it
takes, which certificates it shows and until when, what each verifier says of
them, and what becomes of a connection to it.

TO is tls://host:port or dtls://host:port, with the flags of the server's side as
proxy has them. With -c it is a server of that file, reached as its routes do; all
of them where no TO is named. The exit code is 0 where every connection succeeds.`,
		Example: `  sallyport probe tls://db.example:5432 --to-ca db-ca.pem
  sallyport probe -c sallyport.yaml --json`,
		Args: cobra.MaximumNArgs(1),
	}
	path := cmd.Flags().StringP("config", "c", "", "take the servers of `FILE`")
	asJSON := cmd.Flags().Bool("json", false, "write JSON, a report a server")
	flags := config.NewFlags(cmd.Flags(), config.OfServer)
	completeValues(cmd)
	groupFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := probed(cmd, flags, *path, args)
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		probers, program, err := build.Probers(file, build.Options{Env: os.Getenv})
		if err != nil {
			return failure{err, exitFailed}
		}
		defer program.Close()
		for _, w := range append(warnings, program.Warnings...) {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
		}
		servers := byServer(probers, args)
		if len(servers) == 0 {
			return errors.New("there is no such server that shows a certificate\nhint: TO as the file has it, tls://host:port or dtls://host:port; pre-shared keys show none")
		}
		good := true
		for i, by := range servers {
			if *path == "" {
				by[0].Name = "as asked"
			}
			r := probe.Server(ctx, by)
			good = good && r.Good()
			if err := report(cmd, r, *asJSON, i > 0); err != nil {
				return failure{err, exitFailed}
			}
		}
		if !good {
			return failure{errors.New("not every connection succeeds"), exitFailed}
		}
		return nil
	}
	return cmd
}

// probed is the configuration that says how servers are reached.
func probed(cmd *cobra.Command, flags *config.Flags, path string, args []string) (*config.File, error) {
	if path != "" {
		var wrong error
		cmd.Flags().Visit(func(f *pflag.Flag) {
			if strings.HasPrefix(f.Name, "to-") || f.Name == "to" || f.Name == "unsafe-no-verify" {
				wrong = fmt.Errorf("with -c the server's side is what the file says, so --%s has no meaning", f.Name)
			}
		})
		if wrong != nil {
			return nil, wrong
		}
		return flags.Load(path, options())
	}
	if len(args) == 0 {
		return nil, errors.New("TO is missing\nhint: sallyport probe tls://db.example:5432, or -c FILE")
	}
	from := "tcp://127.0.0.1:0"
	switch {
	case strings.HasPrefix(args[0], "dtls://"):
		from = "udp://127.0.0.1:0"
	case !strings.HasPrefix(args[0], "tls://"):
		return nil, fmt.Errorf("%q is no TLS server\nhint: tls://host:port, or dtls://host:port", args[0])
	}
	return flags.File(from, args, options())
}

// byServer gathers the routes that lead to the same server.
func byServer(all []*build.Prober, args []string) [][]*build.Prober {
	var out [][]*build.Prober
	for _, p := range all {
		if len(args) > 0 && p.To != args[0] {
			continue
		}
		i := slices.IndexFunc(out, func(by []*build.Prober) bool { return by[0].To == p.To })
		if i < 0 {
			out = append(out, []*build.Prober{p})
			continue
		}
		out[i] = append(out[i], p)
	}
	return out
}

func report(cmd *cobra.Command, r *probe.Report, asJSON, further bool) error {
	if asJSON {
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	if further {
		fmt.Fprintln(cmd.OutOrStdout())
	}
	return r.Write(cmd.OutOrStdout())
}
