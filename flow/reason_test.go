package flow

import (
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table of reasons in doc/log.md")

// doc/log.md lists exactly the reasons that there are.
func TestReasonsAreDocumented(t *testing.T) {
	const file = "../doc/log.md"
	const head = "| reason | fault | alert | meaning |\n|---|---|---|---|\n"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	above, table, ok := strings.Cut(string(b), head)
	if !ok {
		t.Fatalf("%s has no table of reasons", file)
	}
	if want := reasonTable(); table != want {
		if *update {
			if err := os.WriteFile(file, []byte(above+head+want), 0o644); err != nil {
				t.Fatal(err)
			}
			return
		}
		t.Errorf("%s is not what the code says; go test ./flow -update writes it anew", file)
	}
}

func reasonTable() string {
	all := Reasons()
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if a.Fault() != b.Fault() {
			return a.Fault() < b.Fault()
		}
		return a < b
	})
	var s strings.Builder
	for _, r := range all {
		alert := "–"
		if n, ok := r.Alert(); ok {
			alert = fmt.Sprint(n)
		}
		fmt.Fprintf(&s, "| `%s` | %s | %s | %s |\n", r, r.Fault(), alert, r.Meaning())
	}
	return s.String()
}

func TestEveryReasonSaysWhat(t *testing.T) {
	if len(Reasons()) < 50 {
		t.Fatalf("only %d reasons", len(Reasons()))
	}
	for _, r := range Reasons() {
		if r.Meaning() == "" {
			t.Errorf("%s has no meaning", r)
		}
	}
}

func TestFailKeepsReasonAndCause(t *testing.T) {
	cause := fmt.Errorf("cause")
	e := AsError(fmt.Errorf("around: %w", Fail(CertExpired, "server: %w", cause)), Internal)
	if e.Reason != CertExpired || e.Fault != FaultServer {
		t.Errorf("got %+v", e)
	}
	if e := AsError(cause, Internal); e.Reason != Internal || e.Fault != FaultOurs || e.Error() != "cause" {
		t.Errorf("got %+v", e)
	}
	if AsError(nil, Internal) != nil {
		t.Error("an error out of nothing")
	}
}
