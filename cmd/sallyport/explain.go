package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sallyport/build"
	"sallyport/config"
	"sallyport/tool/explain"
)

func newExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [-c FILE] [HOST]",
		Short: "Say in plain words what a file amounts to, or what becomes of one server name",
		Long: `Say in plain words what a file amounts to: what each listener takes, which
versions, ciphers and groups, which name goes where, who may pass, what a client
gets that sends no name, a wrong one, no certificate or speaks TLS 1.0, what is
unsafe, and what expires when. With HOST, what becomes of clients that ask for
that name; the exit code is 1 where none of them is taken.`,
		Args: cobra.MaximumNArgs(1),
	}
	path := fileFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := config.Load(*path, options())
		if err != nil {
			return fileHint(*path, err)
		}
		program, err := ready(file, build.Options{Env: os.Getenv, DryRun: true})
		if err != nil {
			return err
		}
		defer program.Close()
		subject := explain.Subject{File: file, Program: program, Now: time.Now()}
		if len(args) == 0 {
			return explain.All(cmd.OutOrStdout(), subject)
		}
		taken, err := explain.Host(cmd.OutOrStdout(), subject, args[0])
		switch {
		case err != nil:
			return failure{err, exitFailed}
		case !taken:
			return failure{fmt.Errorf("nobody takes %s", args[0]), exitFailed}
		}
		return nil
	}
	return cmd
}
