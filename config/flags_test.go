package config_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"sallyport/config"
)

const pin = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// samples has a right value for what each type of key takes, and for keys
// whose type says too little.
var samples = map[string][]string{
	"FILE": {"a.pem", "dir,with/comma.pem"}, "FILE|system": {"a.pem", "system"}, "NUMBER": {"7"}, "SIZE": {"512MiB"}, "BITS": {"24"}, "FILE|URL": {"list.json", "https://ct.example/list.json"}, "resolver.addr": {"udp://127.0.0.1:53", "tls://9.9.9.9:853"}, "PIN": {pin},
	"CIPHERS": {"ECDHE-RSA-AES128-GCM-SHA256", "AES128-SHA"}, "GROUPS": {"X25519", "P-256"},
	"NAME": {"a.example"}, "USER[:GROUP]": {"997:ssl-cert"}, "URI": {"spiffe://corp/ops/*"}, "CIDR": {"10.0.0.0/8", "::1"},
	"TEXT": {"some text, with: a comma"}, "ADDR": {"unix:/run/agent.sock"}, "EXPR": {`any(dns, like(#, "*.a.example"))`}, "on|off": {"on"}, "DURATION": {"90s"}, "VERSION": {"1.2"},
	"PROTOCOLS|mirror": {"h2", "http/1.1"}, "DURATION|@FILE": {"@offset"}, "all": {"all"},
	"allow.ip_san": {"10.0.0.0/8"}, "BYTES": {"576"}, "SHARE": {"0.25"}, "admin": {"unix:/run/a.sock"}, "metrics": {"tcp://127.0.0.1:9100"}, "to.psk_identity": {"dev 1"}, "action": {"terminate"}, "proxy_protocol": {"require"}, "name": {"edge"}, "tls.min": {"1.0"},
}

func sample(k config.Key) []string {
	if s := samples[k.Path]; s != nil {
		return s
	}
	if len(k.Values) > 0 {
		return k.Values[:1]
	}
	values := samples[k.Type]
	if !k.List && k.Type != "PROTOCOLS|mirror" && len(values) > 1 {
		values = values[:1]
	}
	return values
}

// needs are the keys that another one makes no sense without.
func needs(k config.Key) map[string]any {
	lis := map[string]any{"cert": []any{"site.pem"}}
	switch k.Path {
	case "psk":
		return map[string]any{}
	case "proxy_protocol":
		lis["proxy_trust"] = []any{"10.0.0.0/8"}
	case "proxy_trust":
		lis["proxy_protocol"] = "require"
	case "spiffe":
		return map[string]any{"allow": []any{map[string]any{"cn": "x"}}}
	case "to.psk_identity":
		put(lis, "to.psk", "a.psk")
	}
	if top, _, _ := strings.Cut(k.Path, "."); k.Path != "client.from" && (top == "client" || top == "allow") {
		lis["client"] = map[string]any{"ca": "ca.pem"}
		if top == "client" {
			lis["allow"] = []any{map[string]any{"cn": "x"}}
		}
	}
	return lis
}

// TestBothSpellings says the same by every flag and by its key in a file, and
// prints the file for the flags.
func TestBothSpellings(t *testing.T) {
	for _, k := range config.Keys() {
		if k.Flag == "" {
			continue
		}
		t.Run(k.Flag, func(t *testing.T) {
			values := sample(k)
			if len(values) == 0 {
				t.Fatalf("no sample for %s", k.Type)
			}
			base := needs(k)
			args := []string{"tls://:443", "tls://10.0.0.1:443"}
			if strings.Contains(k.Path, "psk") || strings.HasSuffix(k.Path, "tls.mtu") || strings.HasSuffix(k.Path, "tls.cid") {
				args = []string{"dtls://:443", "dtls://10.0.0.1:443"}
			}
			for _, path := range []string{"cert", "client.ca", "allow.cn", "to.psk", "proxy_trust", "proxy_protocol"} {
				if hasPath(base, path) && path != k.Path {
					args = append(args, "--"+strings.NewReplacer(".", "-", "_", "-").Replace(path), map[string]string{"proxy_trust": "10.0.0.0/8", "proxy_protocol": "require", "cert": "site.pem", "client.ca": "ca.pem", "allow.cn": "x", "to.psk": "a.psk"}[path])
				}
			}
			for _, v := range values {
				if k.List && k.Type != "EXPR" && strings.Contains(v, ",") {
					v = `"` + v + `"`
				}
				args = append(args, "--"+k.Flag+"="+v)
			}
			file := map[string]any{"listeners": []any{base}}
			base["from"] = args[0]
			put(base, "to.addr", args[1])
			under := base
			if k.In == "file" {
				under = file
			}
			putKey(under, k, values)
			same(t, args, file)
		})
	}
}

// putKey writes the key as a user would in a file.
func putKey(under map[string]any, k config.Key, values []string) {
	if _, rule, ok := strings.Cut(k.Path, "allow."); ok {
		var rules []any
		for _, v := range values {
			rules = append(rules, map[string]any{rule: v})
		}
		under["allow"] = rules
		return
	}
	if len(values) == 1 {
		put(under, k.Path, values[0])
		return
	}
	put(under, k.Path, values)
}

func put(m map[string]any, path string, v any) {
	key, rest, more := strings.Cut(path, ".")
	if !more {
		m[key] = v
		return
	}
	sub, _ := m[key].(map[string]any)
	if sub == nil {
		sub = map[string]any{}
		m[key] = sub
	}
	put(sub, rest, v)
}

func hasPath(m map[string]any, path string) bool {
	key, rest, more := strings.Cut(path, ".")
	sub, _ := m[key].(map[string]any)
	if rules, ok := m[key].([]any); ok && more {
		sub, _ = rules[0].(map[string]any)
	}
	return m[key] != nil && (!more || hasPath(sub, rest))
}

func same(t *testing.T, args []string, file map[string]any) {
	t.Helper()
	o := config.Options{}
	fs := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
	flags := config.NewFlags(fs, config.Every)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	byFlags, err := flags.File(fs.Arg(0), fs.Args()[1:], o)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	var printed strings.Builder
	if err := flags.Print(&printed, fs.Arg(0), fs.Args()[1:]); err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"printed": printed.String()}
	if file != nil {
		js, err := json.MarshalIndent(file, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		texts["by key"] = string(js)
	}
	for how, text := range texts {
		byFile, err := config.Parse("x.yaml", []byte(text), o)
		if err != nil {
			t.Fatalf("%s: %v\n%s", how, err, text)
		}
		if a, b := plain(byFlags), plain(byFile); !reflect.DeepEqual(a, b) {
			t.Errorf("%s\nflags %q\n%+v\nfile\n%s\n%+v", how, args, a, text, b)
		}
	}
}

// plain forgets where things were said.
func plain(f *config.File) *config.File {
	out := *f
	forget(reflect.ValueOf(&out).Elem())
	return &out
}

func forget(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[config.Pos]() {
			v.SetZero()
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				forget(v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			forget(v.Index(i))
		}
	}
}

func TestPrintAll(t *testing.T) {
	args := []string{"tls://[::1]:0", "tls://unix:a b.sock", "--alpn", "h2", "--cert", `a.pem,"c,d.pem"`, "--key", "k: ü\t\"",
		"--cert", "# x", "--tls", "old", "--tls-min", "1.0", "--tls-max=1.3", "--client-ca", "ca.pem", "--client-from", "10.0.0.0/8,::1",
		"--allow-dns", "*.a.example,b.example", "--allow-uri", "spiffe://corp/**", "--to-name", "x.example", "--to-sni", "",
		"--unsafe-no-verify", "--unsafe-clock-offset=-3d", "--log-format", "json", "--to-alpn", "http/1.1", "--unsafe-keylog", "~/.keys",
		"--state-dir", "null", "--timeouts-idle", "0"}
	same(t, args, nil)
}

func TestRunFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, "s.yaml", "log: {format: text, level: warn}\nlisteners:\n  - {from: \"tls://:1\", action: reject}\n")
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	flags := config.NewFlags(fs, config.OfProcess)
	if err := fs.Parse([]string{"--log-format=json", "--resolve", "a.example:443:::1", "--unsafe-clock-offset=1d"}); err != nil {
		t.Fatal(err)
	}
	f, err := flags.Load("s.yaml", config.Options{Env: func(k string) string {
		return map[string]string{"STATE_DIRECTORY": "/var/lib/a:/b"}[k]
	}})
	if err != nil {
		t.Fatal(err)
	}
	if f.Log.Format != "json" || f.Log.Level != "warn" || len(f.Resolve) != 1 || f.Resolve[0].Addr.String() != "::1" || f.StateDir != "/var/lib/a" {
		t.Errorf("%+v", f)
	}
	if len(f.Warnings) != 1 {
		t.Errorf("%v", f.Warnings)
	}
	if fs.Lookup("cert") != nil || fs.Lookup("state-dir") == nil {
		t.Error("run takes flags that are the file's")
	}
}

func TestUnknownFlag(t *testing.T) {
	for flag, want := range map[string]string{
		"--cacert": "--client-ca", "--ca": "--to-ca", "--CAfile": "--to-ca", "--listen": "FROM", "--target": "TO", "--status": "--metrics",
		"-k": "--unsafe-no-verify", "--insecure": "--unsafe-no-verify", "--servername=x": "--to-sni", "--client-cert": "--to-cert",
		"--certt": "did you mean --cert?", "--acme-email": "not built", "--mint-cert": "not built",
		"--limits-memory": "only in a file", "--to-source": "not built", "--users": "not built", "--match-sni": "only in a file",
		"--include": "only in a file", "--to_tls_min": "--to-tls-min", "--print-confg": "--print-config",
	} {
		if got := config.UnknownFlag(flag); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", flag, got, want)
		}
	}
	if got := config.UnknownFlag("--xyzzy"); got != "" {
		t.Errorf("--xyzzy: %q", got)
	}
	for _, k := range config.Keys() {
		if k.Doc == "" || k.Group == "" {
			t.Errorf("%s: no doc or group", k.Path)
		}
	}
}

// FuzzPrint gives texts of any kind to flags: what is taken must come back
// from the printed file.
func FuzzPrint(f *testing.F) {
	for _, s := range []string{"a.pem", "null", "~", "0x10", "- a", "a: b", "#", "\"", "'", "a,b", "é\u2028", "\U0001F600", "[", "*a", "&a", "!t", "%", "@x", "`", " ", "a ", "\x7f", "\u0085", "<<", "1_0", "|", ">", "?"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, cert, dir string) {
		args := []string{"tls://:443", "tls://10.0.0.1:443", "--cert=" + cert, "--state-dir=" + dir, "--client-ca=ca.pem", "--allow-cn=" + dir}
		fs := pflag.NewFlagSet("proxy", pflag.ContinueOnError)
		flags := config.NewFlags(fs, config.Every)
		if err := fs.Parse(args); err != nil {
			t.Fatal(err)
		}
		if _, err := flags.File(fs.Arg(0), fs.Args()[1:], config.Options{}); err == nil {
			same(t, args, nil)
		}
	})
}
