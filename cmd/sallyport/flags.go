package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sallyport/config"
)

// flagError adds a hint to the error about a flag that does not exist.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name := unknown.GetSpecifiedName()
	if letters := unknown.GetSpecifiedShortnames(); len(letters) > 1 {
		// One dash before a word: -CAfile, as openssl has it.
		name, _, _ = strings.Cut(letters, "=")
		err = fmt.Errorf("unknown flag: -%s (ours have two dashes)", name)
	}
	if hint := flagHint(cmd, name); hint != "" {
		return fmt.Errorf("%w\nhint: %s", err, hint)
	}
	return err
}

// flagHint knows that with a file most flags are its keys.
func flagHint(cmd *cobra.Command, name string) string {
	keys := config.Keys()
	i := slices.IndexFunc(keys, func(k config.Key) bool { return k.Flag != "" && k.Flag == name })
	switch {
	case i >= 0 && cmd.Flags().Lookup("config") != nil:
		return "with a file it is a key of the file: `" + keys[i].Path + "`"
	case i >= 0:
		return "it is a flag of sallyport proxy"
	}
	return config.UnknownFlag(name)
}

// completeValues has the shell offer the words that a flag takes.
func completeValues(cmd *cobra.Command) {
	for _, k := range config.Keys() {
		words := k.Values
		if len(words) == 0 && k.Type == "on|off" {
			words = []string{"on", "off"}
		}
		if k.Flag != "" && len(words) > 0 && cmd.Flags().Lookup(k.Flag) != nil {
			cmd.RegisterFlagCompletionFunc(k.Flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
		}
	}
}
