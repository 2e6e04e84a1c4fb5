package main

import (
	"cmp"
	"os"

	"github.com/spf13/cobra"
)

// runtimeDir is where the unit's RuntimeDirectory= is, for who calls upgrade by hand.
const runtimeDir = "/run/sallyport"

func newUpgrade(warnings []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "upgrade [-c FILE]",
		Short: "Take over from the process that runs",
		Long: `Take over from the process that runs, without a refused connection: for another
version of sallyport, or a file that the running one's sandbox does not let
through. It fetches the listening sockets from $RUNTIME_DIRECTORY/upgrade.sock
(` + runtimeDir + ` where that is not set), goes on as sallyport run does, and the
other one lets its connections finish and ends, associations of datagrams among
them. Where anything is wrong, the other one goes on as if nothing had been.`,
		Args: noFile,
	}
	serveFile(cmd, warnings, func() string { return doorPath(cmp.Or(os.Getenv("RUNTIME_DIRECTORY"), runtimeDir)) })
	return cmd
}
