package probe

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Write writes r for people.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	b.WriteString(r.To)
	if r.Server != "" && !strings.HasSuffix(r.To, "://"+r.Server) {
		b.WriteString(" (" + r.Server + ")")
	}
	b.WriteByte('\n')
	line := func(head, format string, args ...any) {
		fmt.Fprintf(&b, "  %-11s %s\n", head, fmt.Sprintf(format, args...))
	}
	if r.Failed != "" {
		line("failed", "%s: %s", r.Reason, r.Failed)
	}
	tried(line, "versions", r.Versions)
	tried(line, "groups", r.Groups)
	if a := r.Agreed; a != nil {
		line("agreed", "%s", text(slices.DeleteFunc([]string{a.Version, a.Cipher, a.Group, protocol(a.ALPN), fmt.Sprintf("in %.1f ms", a.Millis)}, func(s string) bool { return s == "" })))
	}
	for i, c := range r.Chain {
		head := ""
		if i == 0 {
			head = "shows"
		}
		line(head, "%d  %s", i, quoted(c.Subject))
		if len(c.Names) > 0 {
			line("", "   for %s", names(c.Names))
		}
		line("", "   from %s", quoted(c.Issuer))
		line("", "   %s, signed with %s, valid %s to %s (%s)", c.Key, c.Signature, day(c.NotBefore), day(c.NotAfter), left(c.DaysLeft))
		line("", "   %s", c.Pin)
	}
	for _, e := range r.Extras {
		line(e.Kind, "%s", e.Text)
	}
	said(line, "says", r.Verdicts)
	said(line, "route", r.Routes)
	_, err := io.WriteString(w, b.String())
	return err
}

func tried(line func(string, string, ...any), head string, tries []Try) {
	var yes, no, unclear []string
	for _, t := range tries {
		switch {
		case t.OK:
			yes = append(yes, t.Name)
		case t.Unclear:
			unclear = append(unclear, t.Name)
		default:
			no = append(no, t.Name)
		}
	}
	if len(tries) == 0 {
		return
	}
	if len(yes) == 0 {
		yes = []string{"none"}
	}
	all := text(yes)
	if len(unclear) > 0 {
		all += "; perhaps " + text(unclear)
	}
	if len(no) > 0 {
		all += "; not " + text(no)
	}
	line(head, "%s", all)
}

func said(line func(string, string, ...any), head string, list []Verdict) {
	for _, v := range list {
		word := "passes"
		if !v.Passes {
			word = "refuses"
			if head == "route" {
				word = "is refused"
			}
		}
		detail := v.Text
		if v.Reason != "" {
			detail = v.Reason + ": " + detail
		}
		if detail != "" {
			word += ": " + detail
		}
		line(head, "%s %s", v.By, word)
		for _, n := range v.Notes {
			line("", "   noted: %s", n)
		}
		head = ""
	}
}

func text(list []string) string { return strings.Join(list, ", ") }

func protocol(alpn string) string {
	if alpn == "" {
		return ""
	}
	return "ALPN " + quoted(alpn)
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func left(days int) string {
	if days < 0 {
		return fmt.Sprintf("for %d days no more", -days)
	}
	return fmt.Sprintf("%d days left", days)
}

const mostNames = 8

// names are strangers' words.
func names(list []string) string {
	var out []string
	for i, n := range list {
		if i == mostNames {
			out = append(out, fmt.Sprintf("and %d more", len(list)-mostNames))
			break
		}
		out = append(out, quoted(n))
	}
	return text(out)
}

func quoted(s string) string {
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` || s == "" {
		return q
	}
	return s
}
