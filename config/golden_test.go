package config_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"sallyport/config"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// TestGolden runs the cases of testdata: NAME.yaml or NAME.args, what `run`
// reads or `proxy` is called with, and what comes of it in the same name and .want.
func TestGolden(t *testing.T) {
	archives, _ := filepath.Glob("testdata/*.txtar")
	if len(archives) == 0 {
		t.Fatal("no testdata")
	}
	for _, path := range archives {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			golden(t, path)
		})
	}
}

func golden(t *testing.T, path string) {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	comment, files := txtar(string(text))
	want := map[string]string{}
	t.Chdir(t.TempDir())
	for _, f := range files {
		if strings.HasSuffix(f.name, ".want") {
			want[f.name] = f.data
			continue
		}
		if err := os.MkdirAll(filepath.Dir(f.name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.name, []byte(f.data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := comment
	cases := 0
	for _, f := range files {
		ext := filepath.Ext(f.name)
		if ext != ".want" {
			out += "-- " + f.name + " --\n" + f.data
		}
		if ext != ".args" && (ext != ".yaml" || strings.Contains(f.name, "/")) {
			continue
		}
		cases++
		name := f.name + ".want"
		got := outcome(f.name, f.data)
		if !*update && got != want[name] {
			t.Errorf("%s\n--- got\n%s--- want\n%s", f.name, got, want[name])
		}
		out += "-- " + name + " --\n" + got
	}
	if cases == 0 {
		t.Error("no cases")
	}
	if *update {
		if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type file struct{ name, data string }

// txtar takes an archive of golang.org/x/tools/txtar apart.
func txtar(text string) (comment string, files []file) {
	for line := range strings.Lines(text) {
		name, isName := strings.CutPrefix(line, "-- ")
		name, closed := strings.CutSuffix(name, " --\n")
		switch {
		case isName && closed:
			files = append(files, file{name: name})
		case len(files) == 0:
			comment += line
		default:
			files[len(files)-1].data += line
		}
	}
	return comment, files
}

func outcome(name, data string) string {
	env := config.Options{Env: func(string) string { return "" }}
	var f *config.File
	var err error
	if strings.HasSuffix(name, ".args") {
		f, err = proxy(strings.Fields(data), env)
	} else {
		f, err = config.Load(name, env)
	}
	if err != nil {
		return err.Error() + "\n"
	}
	var b strings.Builder
	dump(&b, "", reflect.ValueOf(*f))
	for _, w := range f.Warnings {
		fmt.Fprintf(&b, "warning: %s: %s\n", w.Pos, w.Text)
	}
	return b.String()
}

// proxy does what the command does with its arguments.
func proxy(args []string, o config.Options) (*config.File, error) {
	fs := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
	flags := config.NewFlags(fs, config.Every)
	for i := range args {
		args[i] = strings.Trim(args[i], "'")
	}
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	return flags.File(fs.Arg(0), fs.Args()[1:], o)
}

// dump writes what differs from a route that says nothing.
func dump(b *strings.Builder, path string, v reflect.Value) {
	switch x := v.Interface().(type) {
	case config.Pos, []config.Warning, config.Timeouts:
		if path == "timeouts" || !strings.HasSuffix(path, ".timeouts") || x == defaultTimeouts {
			return
		}
	case config.Limits:
		if x == defaultLimits {
			return
		}
	case config.ProcessLimits:
		if x == defaultProcess {
			return
		}
	case config.Part:
		if x == 1 {
			return
		}
	case config.Address:
		if x == (config.Address{}) && (!strings.HasPrefix(path, "listeners") || strings.HasSuffix(path, "spiffe")) {
			return
		}
		fmt.Fprintf(b, "%s: %s\n", path, x)
		return
	case config.Name:
		fmt.Fprintf(b, "%s: %q\n", path, x.Text)
		return
	case config.Pool:
		if len(x.Servers) < 2 && plainPool(x) {
			return
		}
	case config.Version:
		if x != 0 {
			fmt.Fprintf(b, "%s: %#04x\n", path, uint16(x))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if _, ok := v.Interface().(fmt.Stringer); ok {
			fmt.Fprintf(b, "%s: %v\n", path, v)
			return
		}
		for i := range v.NumField() {
			sub := strings.ToLower(v.Type().Field(i).Name)
			if path != "" {
				sub = path + "." + sub
			}
			dump(b, sub, v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			dump(b, fmt.Sprintf("%s[%d]", path, i), v.Index(i))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			dump(b, path, v.Elem())
		}
	default:
		if !v.IsZero() || strings.HasSuffix(path, ".sni") && strings.Contains(b.String(), "pattern: bridge") {
			fmt.Fprintf(b, "%s: %v\n", path, v)
		}
	}
}

// plainPool says whether nothing is said of one server beside its address.
func plainPool(p config.Pool) bool {
	for _, s := range p.Servers {
		if s.Share != (config.Share{Weight: 1}) {
			return false
		}
	}
	p.Servers = nil
	return reflect.DeepEqual(p, config.Pool{}) || reflect.DeepEqual(p, defaultPool)
}

var defaultPool = config.Pool{Balance: config.RoundRobin, Hash: config.HashClient, Retry: 1, Check: config.Check{Rise: 2, Fall: 3}}

var (
	defaultLimits  = config.Limits{Handshakes: config.Auto, Prefix4: 32, Prefix6: 64}
	defaultProcess = config.ProcessLimits{Memory: config.Auto, Handshakes: config.Auto}
)

var defaultTimeouts = config.Timeouts{Peek: 5e9, Handshake: 10e9, Dial: 5e9, Idle: 3600e9, Linger: 30e9, Drain: 30e9}
