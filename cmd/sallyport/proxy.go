package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"sallyport/config"
)

const defaultFile = "/etc/sallyport/sallyport.yaml"

func newProxy(warnings []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "proxy FROM TO [TO...] [flags]",
		Short: "Run one listener from the command line",
		Long: `Run one listener from the command line. FROM and TO are CARRIER://WHERE, where
CARRIER is tcp or tls, or for datagrams udp or dtls, and WHERE is host:port, :port
for all addresses of this host, unix:PATH, or, for FROM, systemd:NAME. Several TO
are several servers, one of which each connection goes to.

A flag is the path of its key in the file, with dashes. Flags that begin with
--to act towards the server, the others towards clients. --print-config writes
the file that says the same.`,
		Example: `  sallyport proxy tls://:443 tcp://127.0.0.1:8080 --cert site.pem --key site.key
  sallyport proxy tcp://127.0.0.1:5432 tls://db.example:5432 --to-ca db-ca.pem
  sallyport proxy tls://:6380 tcp://127.0.0.1:6379 --cert s.pem --client-ca ca.pem --allow-dns '*.apps.example'
  sallyport proxy dtls://:5684 udp://127.0.0.1:5683 --psk devices.psk`,
		Args: ends,
	}
	flags := config.NewFlags(cmd.Flags(), config.Every)
	completeValues(cmd)
	print := cmd.Flags().Bool("print-config", false, "write the equivalent file to standard output and end")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *print {
			return flags.Print(cmd.OutOrStdout(), args[0], args[1:])
		}
		return serve(cmd.Context(), func(o config.Options) (*config.File, error) {
			return flags.File(args[0], args[1:], o)
		}, warnings, "")
	}
	groupFlags(cmd)
	return cmd
}

// ends asks for FROM and TO.
func ends(_ *cobra.Command, args []string) error {
	if len(args) >= 2 {
		return nil
	}
	missing := "FROM and TO are"
	if len(args) == 1 {
		missing = "TO is"
	}
	return fmt.Errorf("%s missing\nhint: sallyport proxy tls://:443 tcp://127.0.0.1:8080 --cert site.pem", missing)
}

// noFile refuses a file that is named without -c.
func noFile(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return fmt.Errorf("%s takes no arguments, and there is %q\nhint: a file is named by -c: %s -c %s", cmd.Name(), args[0], cmd.CommandPath(), args[0])
}

func newRun(warnings []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Run the listeners of a file",
		Long: `Run the listeners of a file, ` + defaultFile + ` unless -c names another.

SIGTERM and SIGINT end it: no new connections, the open ones have timeouts.drain
to finish; a second signal ends at once. SIGHUP has it read the file again, and
all that it names, as does a change of any of them: open connections stay as they
are, new ones go by the new file. Where anything is wrong, what ran before goes on.`,
		Args: noFile,
	}
	serveFile(cmd, warnings, func() string { return "" })
	return cmd
}

// serveFile has cmd run the listeners of a file, with the sockets of the process behind
// door, where there is to be one.
func serveFile(cmd *cobra.Command, warnings []string, door func() string) {
	path := fileFlag(cmd)
	flags := config.NewFlags(cmd.Flags(), config.OfProcess)
	completeValues(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return serve(cmd.Context(), func(o config.Options) (*config.File, error) {
			file, err := flags.Load(*path, o)
			return file, fileHint(*path, err)
		}, warnings, door())
	}
}

func newCheck(warnings []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [-c FILE] [--running]",
		Short: "Read a file and everything it names, and say what is wrong",
		Long: `Read a file and everything it names (certificates, keys, trust anchors), and say
what is wrong, without listening. The exit code is 0 where run would start; with
--running, where the process that runs could take the file by a reload: it has
confined itself to what its own file named.`,
		Args: noFile,
	}
	path := fileFlag(cmd)
	running := cmd.Flags().Bool("running", false, "ask the running process whether a reload would do")
	at := cmd.Flags().String("admin", "", "with --running, the control socket, `ADDR` (default: what the file says)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		first := new(survey)
		file, err := config.Load(*path, first.options())
		if err != nil {
			return fileHint(*path, err)
		}
		program, err := rehearse(file, first, func(text string, _ ...any) { warnings = append(warnings, text) })
		if err != nil {
			return err
		}
		defer program.Close()
		for _, w := range slices.Concat(warnings, program.Errors, program.Warnings) {
			fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", w)
		}
		for _, l := range program.Listeners {
			for _, line := range l.Lines {
				fmt.Fprint(cmd.OutOrStdout(), line.Text)
				for said := attrs(line); len(said) > 1; said = said[2:] {
					fmt.Fprintf(cmd.OutOrStdout(), "  %s=%q", said[0], said[1])
				}
				fmt.Fprintln(cmd.OutOrStdout())
			}
		}
		if *running {
			if err := fits(cmd.Context(), *path, file, first.needs(file), *at); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good, and a reload would do\n", *path)
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: good\n", *path)
		return nil
	}
	return cmd
}

func fileFlag(cmd *cobra.Command) *string {
	path := cmd.Flags().StringP("config", "c", defaultFile, "read `FILE`")
	cmd.MarkFlagFilename("config", "yaml", "yml")
	return path
}

// fileHint is for who has not written a file yet.
func fileHint(path string, err error) error {
	if _, missing := os.Stat(path); err != nil && path == defaultFile && errors.Is(missing, fs.ErrNotExist) {
		return fmt.Errorf("%w\nhint: -c names another file; one listener needs none: sallyport proxy FROM TO", err)
	}
	return err
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Write the JSON Schema of the file, for editors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			schema, err := config.Schema()
			if err != nil {
				return failure{err, exitFailed}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", schema)
			return err
		},
	}
}

func options() config.Options {
	return config.Options{Env: os.Getenv}
}
