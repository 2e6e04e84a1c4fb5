package main

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"sallyport/tool/demo"
)

func newDemo() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show every pattern at work on this machine, with a throw-away CA",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if err := demo.Run(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil {
				return failure{err, exitFailed}
			}
			return nil
		},
	}
}
