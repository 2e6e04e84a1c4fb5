package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sallyport/admin"
	"sallyport/config"
	"sallyport/observe"
	"sallyport/tool/top"
)

// controls are the commands that ask a running process.
func controls() []*cobra.Command {
	return []*cobra.Command{newStatus(), newFlows(), newTop(), newKill(), newDrain(), newReload(), newPprof()}
}

// control makes a command whose run has a client of the process.
func control(cmd *cobra.Command, run func(ctx context.Context, c *admin.Client, out io.Writer, args []string) error) *cobra.Command {
	at := cmd.Flags().String("admin", "", "the control socket, `ADDR` (default: unix:"+defaultSocket("")+")")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		addr, err := config.ParseAdmin(cmp.Or(*at, "unix:"+defaultSocket(os.Getenv("RUNTIME_DIRECTORY"))))
		if err != nil {
			return err
		}
		if err := run(cmd.Context(), admin.NewClient(addr), cmd.OutOrStdout(), args); err != nil {
			return failure{err, exitFailed}
		}
		return nil
	}
	return cmd
}

func defaultSocket(dir string) string {
	dir, _, _ = strings.Cut(dir, ":")
	return filepath.Join(cmp.Or(dir, "/run/sallyport"), "admin.sock")
}

func newStatus() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Say how the running process is", Args: cobra.NoArgs}
	asJSON := cmd.Flags().Bool("json", false, "write JSON")
	return control(cmd, func(ctx context.Context, c *admin.Client, out io.Writer, _ []string) error {
		var s admin.Status
		return show(ctx, c, "/status", *asJSON, out, &s, func(w io.Writer) { writeStatus(w, &s, time.Now()) })
	})
}

func newFlows() *cobra.Command {
	cmd := &cobra.Command{Use: "flows", Short: "List the connections that are open, the oldest first", Args: cobra.NoArgs}
	asJSON := cmd.Flags().Bool("json", false, "write JSON")
	return control(cmd, func(ctx context.Context, c *admin.Client, out io.Writer, _ []string) error {
		var f admin.Flows
		return show(ctx, c, "/flows", *asJSON, out, &f, func(w io.Writer) { writeFlows(w, &f, time.Now()) })
	})
}

func newTop() *cobra.Command {
	return control(&cobra.Command{Use: "top", Short: "Watch the running process, the busiest connections first", Args: cobra.NoArgs},
		func(ctx context.Context, c *admin.Client, _ io.Writer, _ []string) error {
			return top.Run(ctx, c, os.Stdin, os.Stdout)
		})
}

// show writes an answer as it came, or by write once it is in v.
func show(ctx context.Context, c *admin.Client, path string, asIs bool, out io.Writer, v any, write func(io.Writer)) error {
	body, err := c.Get(ctx, path)
	if err != nil {
		return err
	}
	if asIs {
		_, err := out.Write(body)
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	write(w)
	return w.Flush()
}

func writeStatus(w io.Writer, s *admin.Status, now time.Time) {
	state := "ready"
	if !s.Ready {
		state = "ending"
	}
	fmt.Fprintf(w, "sallyport %s\tpid %d\n", s.Version, s.PID)
	fmt.Fprintf(w, "%s\tup %s, configuration read %s ago\n", state, age(now.Sub(s.Started)), age(now.Sub(s.Loaded)))
	fmt.Fprintf(w, "flows\t%d open, %d ended, %s up, %s down\n", s.Open, s.Ended, size(s.Up), size(s.Down))
	if s.Most > 0 {
		fmt.Fprintf(w, "most flows\t%d at once, by %s\n", s.Most, s.MostFrom)
	}
	fmt.Fprintf(w, "reloads\t%d good, %d failed\n", s.Reloads, s.Failed)
	if s.LostLines > 0 {
		fmt.Fprintf(w, "log\t%d lines lost\n", s.LostLines)
	}
	for _, l := range s.Listeners {
		fmt.Fprintf(w, "listener\t%s\t%s\t%s\n", l.Name, l.From, l.Addr)
	}
	for _, u := range s.Servers {
		addr := u.Addr
		if u.Service != "" {
			addr += " by " + u.Service
		}
		fmt.Fprintf(w, "server\t%s\t%s\t%s\t%d flows\t%s\n", u.Route, addr, u.State, u.Flows, harmless(u.Err))
	}
	for _, c := range s.Certificates {
		fmt.Fprintf(w, "certificate\t%s\t%s\t%s left\n", c.Name, c.File, age(c.NotAfter.Sub(now)))
	}
	for _, h := range s.Held {
		fmt.Fprintf(w, "held back\t%s\t%s\t%s, %s left\n", h.Listener, h.Name, age(now.Sub(h.Since)), age(h.Until.Sub(now)))
	}
}

func writeFlows(w io.Writer, f *admin.Flows, now time.Time) {
	slices.SortFunc(f.List, func(a, b observe.Alive) int { return cmp.Compare(a.ID, b.ID) })
	fmt.Fprintln(w, "ID\tSTAGE\tROUTE\tCLIENT\tSERVER\tSNI\tUP\tDOWN\tAGE")
	for _, a := range f.List {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			a.ID, a.Stage, cmp.Or(a.Route, a.Listener), a.Client, a.Server, harmless(a.SNI), size(a.Up), size(a.Down), age(now.Sub(a.Start)))
	}
	if n := f.All - len(f.List); n > 0 {
		fmt.Fprintf(w, "and %d more\n", n)
	}
}

// harmless makes what a stranger has sent harmless on a terminal.
func harmless(s string) string {
	if q := strconv.QuoteToASCII(s); q != `"`+s+`"` {
		return q
	}
	return s
}

func size(n int64) string {
	for _, unit := range []struct {
		bytes int64
		name  string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.bytes), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func age(d time.Duration) string {
	if d >= 48*time.Hour || d <= -48*time.Hour {
		return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
	}
	return d.Round(time.Second).String()
}

func newKill() *cobra.Command {
	return control(&cobra.Command{Use: "kill ID", Short: "End one connection, by its ID in flows and in the log", Args: cobra.ExactArgs(1)},
		func(ctx context.Context, c *admin.Client, _ io.Writer, args []string) error {
			return c.Tell(ctx, "/kill?id="+url.QueryEscape(args[0]))
		})
}

func newDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drain [ADDR]", Short: "Give a server no new connections, or with no ADDR end the process gracefully", Args: cobra.MaximumNArgs(1),
		Long: `Give the server at ADDR, as status shows it, no new connections; it keeps those
that it has. With --back it is given some again. Without ADDR the process takes no
new connections and ends when those that are open have, as at SIGTERM.`,
	}
	back := cmd.Flags().Bool("back", false, "give the server connections again")
	return control(cmd, func(ctx context.Context, c *admin.Client, _ io.Writer, args []string) error {
		q := url.Values{}
		if len(args) == 1 {
			q.Set("server", args[0])
		}
		if *back {
			if len(args) == 0 {
				return fmt.Errorf("--back puts a server back in, and none is named")
			}
			q.Set("back", "1")
		}
		return c.Tell(ctx, "/drain?"+q.Encode())
	})
}

func newReload() *cobra.Command {
	return control(&cobra.Command{Use: "reload", Short: "Have the process read everything anew, and say what is wrong", Args: cobra.NoArgs},
		func(ctx context.Context, c *admin.Client, _ io.Writer, _ []string) error {
			return c.Tell(ctx, "/reload")
		})
}

func newPprof() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pprof KIND", Short: "Write a profile of the process to standard output, for go tool pprof", Args: cobra.ExactArgs(1),
		Long: "Write a profile of the process to standard output, for go tool pprof. KIND is cpu, heap,\nallocs, goroutine, threadcreate, block or mutex.",
	}
	seconds := cmd.Flags().Int("seconds", 10, "how long a profile of cpu takes, `N` up to 60")
	return control(cmd, func(ctx context.Context, c *admin.Client, out io.Writer, args []string) error {
		body, err := c.Get(ctx, "/pprof?"+url.Values{"kind": args, "seconds": {strconv.Itoa(*seconds)}}.Encode())
		if err != nil {
			return err
		}
		_, err = out.Write(body)
		return err
	})
}
