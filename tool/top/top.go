// Package top is a live screen of a running process: its sums, its servers, and the
// connections that are open, those with the most bytes a second first.
package top

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"sallyport/admin"
	"sallyport/observe"
)

const every = time.Second

// Run shows the process that c asks until a key or ctx ends it.
func Run(ctx context.Context, c *admin.Client, in io.Reader, out io.Writer) error {
	end, err := tea.NewProgram(screen{ask: func() tea.Msg { return ask(ctx, c) }}, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out)).Run()
	if err != nil {
		return err
	}
	return end.(screen).err
}

// look is what the process was at one moment.
type look struct {
	at     time.Time
	status admin.Status
	flows  admin.Flows
	err    error
}

func ask(ctx context.Context, c *admin.Client) look {
	l := look{at: time.Now()}
	for path, to := range map[string]any{"/status": &l.status, "/flows": &l.flows} {
		body, err := c.Get(ctx, path)
		if err == nil {
			err = json.Unmarshal(body, to)
		}
		if err != nil {
			l.err = err
		}
	}
	return l
}

// screen is the whole state; before is the look before now, for what is a second.
type screen struct {
	ask           func() tea.Msg
	before, now   look
	width, height int
	err           error
}

// Init implements [tea.Model].
func (s screen) Init() tea.Cmd { return s.ask }

// Update implements [tea.Model].
func (s screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch m := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = m.Width, m.Height
	case tea.KeyPressMsg:
		if slices.Contains([]string{"q", "esc", "ctrl+c"}, m.String()) {
			return s, tea.Quit
		}
	case look:
		if m.err != nil {
			s.err = m.err // it has ended, or never was
			return s, tea.Quit
		}
		s.before, s.now = s.now, m
		return s, tea.Tick(every, func(time.Time) tea.Msg { return s.ask() })
	}
	return s, nil
}

// View implements [tea.Model].
func (s screen) View() tea.View {
	v := tea.NewView(s.text())
	v.AltScreen = true
	return v
}

func (s screen) text() string {
	if s.now.at.IsZero() {
		return "asking ..."
	}
	st := &s.now.status
	state := "ready"
	if !st.Ready {
		state = "ending"
	}
	lines := []string{
		fmt.Sprintf("sallyport pid %d  %s  up %s  reloads %d good %d failed  lost lines %d",
			st.PID, state, s.now.at.Sub(st.Started).Round(time.Second), st.Reloads, st.Failed, st.LostLines),
		fmt.Sprintf("flows %d open  %.0f/s ended   up %s/s   down %s/s",
			st.Open, s.rate(int64(st.Ended), int64(s.before.status.Ended)), bytes(s.rate(st.Up, s.before.status.Up)), bytes(s.rate(st.Down, s.before.status.Down))),
	}
	for _, u := range st.Servers {
		if u.State != "up" {
			lines = append(lines, fmt.Sprintf("server %s of %s: %s", u.Addr, u.Route, u.State))
		}
	}
	lines = append(lines, "", fmt.Sprintf("%8s %-8s %-14s %-22s %-24s %12s %12s %8s", "ID", "STAGE", "ROUTE", "CLIENT", "SNI", "UP/s", "DOWN/s", "AGE"))
	for _, f := range s.busiest() {
		lines = append(lines, fmt.Sprintf("%8d %-8s %-14s %-22s %-24s %12s %12s %8s",
			f.ID, f.Stage, cmp.Or(f.Route, f.Listener), f.Client, safe(f.SNI), bytes(f.up), bytes(f.down), s.now.at.Sub(f.Start).Round(time.Second)))
	}
	if s.height > 1 && len(lines) > s.height-1 {
		lines = lines[:s.height-1]
	}
	lines = append(lines, "q ends")
	for i, l := range lines {
		if s.width > 0 && len(l) > s.width {
			lines[i] = l[:s.width] // all of it is ASCII
		}
	}
	return strings.Join(lines, "\n")
}

// rate is by how much a second a sum has grown since the look before.
func (s screen) rate(now, before int64) float64 {
	if s.before.at.IsZero() {
		return 0
	}
	return max(float64(now-before)/s.now.at.Sub(s.before.at).Seconds(), 0)
}

type moving struct {
	observe.Alive
	up, down float64
}

func (s screen) busiest() []moving {
	before := map[uint64]observe.Alive{}
	for _, f := range s.before.flows.List {
		before[f.ID] = f
	}
	var list []moving
	for _, f := range s.now.flows.List {
		was := before[f.ID]
		list = append(list, moving{f, s.rate(f.Up, was.Up), s.rate(f.Down, was.Down)})
	}
	slices.SortFunc(list, func(a, b moving) int {
		return cmp.Or(cmp.Compare(b.up+b.down, a.up+a.down), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// safe makes what a stranger has sent harmless on a terminal.
func safe(s string) string {
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}

func bytes(n float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size {
			return fmt.Sprintf("%.1f %s", n/unit.size, unit.name)
		}
	}
	return fmt.Sprintf("%.0f B", n)
}
