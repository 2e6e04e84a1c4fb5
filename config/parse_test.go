package config_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"sallyport/config"
)

func write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

// cases are the files of the golden tests and of examples, and whether they
// are right.
func cases(t testing.TB) map[string]struct {
	text string
	ok   bool
} {
	out := map[string]struct {
		text string
		ok   bool
	}{}
	archives, _ := filepath.Glob("testdata/*.txtar")
	for _, a := range archives {
		text, err := os.ReadFile(a)
		if err != nil {
			t.Fatal(err)
		}
		_, files := txtar(string(text))
		for i, f := range files {
			if strings.HasSuffix(f.name, ".yaml") && !strings.Contains(f.name, "/") && i+1 < len(files) {
				out[a+" "+f.name] = struct {
					text string
					ok   bool
				}{f.data, strings.HasPrefix(files[i+1].data, "log.format")}
			}
		}
	}
	if len(out) == 0 {
		t.Fatal("no cases")
	}
	examples, _ := filepath.Glob("../examples/*.yaml")
	for _, e := range examples {
		text, err := os.ReadFile(e)
		if err != nil {
			t.Fatal(err)
		}
		out[e] = struct {
			text string
			ok   bool
		}{string(text), true}
	}
	return out
}

func TestExamples(t *testing.T) {
	examples, _ := filepath.Glob("../examples/*.yaml")
	for _, e := range examples {
		if _, err := config.Load(e, config.Options{}); err != nil {
			t.Error(err)
		}
	}
}

// TestSchema holds the JSON Schema against the reader: what is read is valid.
func TestSchema(t *testing.T) {
	text, err := config.Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	for _, k := range config.Keys() {
		last := k.Path[strings.LastIndex(k.Path, ".")+1:]
		if !strings.Contains(string(text), `"`+last+`": {`) {
			t.Errorf("%s is not in the schema", k.Path)
		}
	}
	v := &validator{schema}
	for name, c := range cases(t) {
		var doc any
		if err := yaml.Unmarshal([]byte(c.text), &doc); err != nil {
			continue
		}
		if why := v.check("", schema, doc); c.ok && why != "" {
			t.Errorf("%s is read but not valid: %s", name, why)
		}
	}
	for _, bad := range []string{"listeners: [{form: x}]", "log: {format: xml}", "listeners: [{from: \"tls://:1\", timeouts: {idle: 5}}]", "listeners: [{from: \"tls://:1\", allow: [{}]}]"} {
		var doc any
		if err := yaml.Unmarshal([]byte(bad), &doc); err != nil {
			t.Fatal(err)
		}
		if v.check("", schema, doc) == "" {
			t.Errorf("valid: %s", bad)
		}
	}
}

// validator knows the words of JSON Schema that Schema writes.
type validator struct{ root map[string]any }

func (v *validator) check(path string, s map[string]any, x any) string {
	if ref, ok := s["$ref"].(string); ok {
		return v.check(path, v.root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), x)
	}
	if choice, ok := s["anyOf"].([]any); ok {
		why := ""
		for _, one := range choice {
			sub := v.check(path, one.(map[string]any), x)
			if sub == "" {
				return ""
			}
			why += sub + "; "
		}
		return why
	}
	is := func(y any) bool { a, _ := json.Marshal(x); b, _ := json.Marshal(y); return string(a) == string(b) }
	if enum, ok := s["enum"].([]any); ok && !slices.ContainsFunc(enum, is) {
		return path + ": not one of the words"
	}
	if c, ok := s["const"]; ok && !is(c) {
		return path + ": not the constant"
	}
	switch s["type"] {
	case "string":
		text, ok := x.(string)
		if p, has := s["pattern"].(string); !ok || has && !regexp.MustCompile(p).MatchString(text) {
			return path + ": no such text"
		}
	case "array":
		list, ok := x.([]any)
		if !ok {
			return path + ": no array"
		}
		for _, item := range list {
			if why := v.check(path, s["items"].(map[string]any), item); why != "" {
				return why
			}
		}
	case "object":
		return v.object(path, s, x)
	}
	return ""
}

func (v *validator) object(path string, s map[string]any, x any) string {
	m, ok := x.(map[string]any)
	if least, has := s["minProperties"].(float64); !ok || has && len(m) < int(least) {
		return path + ": no such object"
	}
	for key, val := range m {
		sub, ok := s["properties"].(map[string]any)[key].(map[string]any)
		if !ok {
			return path + "." + key + ": unknown"
		}
		if why := v.check(path+"."+key, sub, val); why != "" {
			return why
		}
	}
	return ""
}

// TestLonger reads the two longer examples of the documentation, which use
// words of later versions: nothing else may be wrong with them.
func TestLonger(t *testing.T) {
	for name, c := range cases(t) {
		if !strings.Contains(name, "longer") {
			continue
		}
		_, err := config.Parse("x.yaml", []byte(c.text), config.Options{})
		var all config.Errors
		if err != nil && !errors.As(err, &all) {
			t.Fatalf("%s: %v", name, err)
		}
		for _, e := range all {
			if !strings.Contains(e.Msg, "not built") {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
}

func TestBounds(t *testing.T) {
	var wide strings.Builder
	for range 20000 {
		wide.WriteString("key" + strings.Repeat("x", wide.Len()%7) + ": v\n")
	}
	for name, text := range map[string]string{
		"flow":  strings.Repeat("[", 1<<20),
		"maps":  strings.Repeat("{a: ", 1<<18),
		"block": strings.Repeat("- ", 1<<19),
		"indent": func() (s string) {
			for i := range 500 {
				s += strings.Repeat(" ", i) + "a:\n"
			}
			return
		}(),
		"wide":     wide.String(),
		"wideflow": "{" + strings.Repeat("a: b, ", 1<<18) + "}",
		"large":    strings.Repeat("#", 4<<20+1),
	} {
		start := time.Now()
		if _, err := config.Parse("x.yaml", []byte(text), config.Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s took %s", name, took)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, c := range cases(f) {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		if strings.Contains(string(src), "include") {
			return // not to read the machine's files
		}
		hung := time.AfterFunc(10*time.Second, func() { panic("hung on " + strconv.Quote(string(src))) })
		defer hung.Stop() // the fuzzer by itself takes a loop without end for slow
		file, err := config.Parse("x.yaml", src, config.Options{})
		if (file == nil) == (err == nil) {
			t.Fatal("neither a file nor an error")
		}
		if err != nil && err.Error() == "" {
			t.Fatal("an error without words")
		}
	})
}
