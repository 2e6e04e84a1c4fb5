// Command sallyport ends and begins TLS between clients and servers. doc/
// has its manual; sallyport --help the short of it.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/posture"
)

// Exit codes, as doc/sallyport.1.md says them.
const (
	exitFailed = 1 // it could not start, or broke
	exitUsage  = 2 // the command line or the file is wrong
)

// version is set by the linker for releases.
var version = ""

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	warnings, err := posture.CheckEnv(os.Environ())
	if err != nil {
		return complain(err, exitFailed)
	}
	root := newRoot(warnings)
	root.SetArgs(args)
	if err := root.Execute(); err != nil {
		var failed failure
		if errors.As(err, &failed) {
			return complain(failed.err, failed.code)
		}
		return complain(err, exitUsage)
	}
	return 0
}

// failure carries the exit code of an error.
type failure struct {
	err  error
	code int
}

func (f failure) Error() string { return f.err.Error() }

func complain(err error, code int) int {
	fmt.Fprintf(os.Stderr, "sallyport: %s\n", err)
	return code
}

const about = `Sallyport ends and begins TLS between clients and servers. What it does is a
pair of ends, FROM and TO:

  offload       sallyport proxy tls://:443 tcp://127.0.0.1:8080 --cert site.pem
                clients speak TLS, the server does not
  encrypt       sallyport proxy tcp://127.0.0.1:5432 tls://db.example:5432
                the client speaks no TLS, the server does; its certificate is verified
  bridge        sallyport proxy tls://:443 tls://10.0.0.7:443 --cert site.pem --to-ca ca.pem
                both speak TLS, with two sessions and a clear space between
  pass-through  sallyport proxy tls://:443 tcp://10.0.0.9:443 --action splice
                both speak TLS with each other; nothing is decrypted

The same with dtls:// and udp:// is for datagrams.

Several listeners, and routes by server name, go into a file: sallyport run -c FILE.`

func newRoot(warnings []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "sallyport",
		Short:         "A TLS and DTLS termination proxy",
		Long:          about,
		Version:       versionText(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noSuchCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newProxy(warnings), newRun(warnings), newUpgrade(warnings), newCheck(warnings), newExplain(), newProbe(warnings), newTLSA(), newDemo(), newSchema(), newVersion())
	root.AddCommand(controls()...)
	root.SetFlagErrorFunc(flagError)
	root.SetVersionTemplate("sallyport {{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	return root
}

func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "sallyport --help lists the commands"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean sallyport " + near[0] + "?"
	} else if strings.Contains(args[0], "://") {
		hint = "did you mean sallyport proxy " + strings.Join(args, " ") + "?"
	}
	return fmt.Errorf("unknown command %q\nhint: %s", args[0], hint)
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is",
		Args:  cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintln(cmd.OutOrStdout(), "sallyport", versionText())
		},
	}
}

// versionText is ours and that of the Go which built it, whose TLS it is.
func versionText() string {
	v, goVersion := version, "unknown Go"
	if info, ok := debug.ReadBuildInfo(); ok {
		goVersion = info.GoVersion
		if v == "" {
			v = info.Main.Version
		}
	}
	if v == "" {
		v = "(devel)"
	}
	return v + " " + goVersion
}
