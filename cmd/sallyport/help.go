package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/config"
)

// groupFlags has help show the flags under the headings of [config.Groups].
func groupFlags(cmd *cobra.Command) {
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "Usage:\n  %s\n\nExamples:\n%s\n", cmd.UseLine(), cmd.Example)
		rest := pflag.NewFlagSet("", pflag.ContinueOnError)
		groups := map[string]*pflag.FlagSet{}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			set := rest
			if g := f.Annotations[config.GroupAnnotation]; len(g) > 0 {
				if groups[g[0]] == nil {
					groups[g[0]] = pflag.NewFlagSet("", pflag.ContinueOnError)
				}
				set = groups[g[0]]
			}
			set.AddFlag(f)
		})
		for _, g := range config.Groups {
			if set := groups[g.Name]; set != nil {
				fmt.Fprintf(out, "\n%s:\n%s", g.Doc, flagLines(set))
			}
		}
		fmt.Fprintf(out, "\nBesides:\n%s", flagLines(rest))
		return nil
	})
}

const helpWidth = 110

// flagLines leaves out the column of short flags, which no flag of a group has.
func flagLines(set *pflag.FlagSet) string {
	text := set.FlagUsagesWrapped(helpWidth)
	if set.Lookup("help") != nil {
		return text
	}
	return strings.ReplaceAll("\n"+text, "\n    ", "\n")[1:]
}
