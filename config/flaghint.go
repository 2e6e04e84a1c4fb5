package config

import "strings"

// strange maps the flags of other programs to the words of ours.
var strange = map[string]string{
	"cacert":      "did you mean --to-ca (the server's certificate) or --client-ca (client certificates)?",
	"ca":          "did you mean --to-ca (the server's certificate) or --client-ca (client certificates)?",
	"CAfile":      "did you mean --to-ca (the server's certificate) or --client-ca (client certificates)?",
	"listen":      "FROM stands without a flag: sallyport proxy FROM TO",
	"target":      "TO stands without a flag: sallyport proxy FROM TO",
	"from":        "FROM stands without a flag: sallyport proxy FROM TO",
	"to":          "TO stands without a flag: sallyport proxy FROM TO",
	"to-addr":     "TO stands without a flag: sallyport proxy FROM TO",
	"status":      "did you mean --metrics?",
	"k":           "did you mean --unsafe-no-verify?",
	"insecure":    "did you mean --unsafe-no-verify?",
	"servername":  "did you mean --to-sni?",
	"client-cert": "did you mean --to-cert?",
}

// UnknownFlag says what may have been meant by a flag that there is not;
// empty where nothing is near.
func UnknownFlag(flag string) (hint string) {
	name, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "=")
	if hint, ok := strange[name]; ok {
		return hint
	}
	dashed := strings.ReplaceAll(name, "_", "-")
	known := []string{"resolve", "print-config"}
	for _, k := range Keys() {
		switch {
		case k.Flag != "":
			known = append(known, k.Flag)
		case flagName(k.Path) == dashed:
			return "`" + k.Path + "` stands only in a file: sallyport run"
		}
	}
	if dashed != name {
		for _, k := range known {
			if k == dashed {
				return "did you mean --" + k + "?"
			}
		}
	}
	for _, l := range laterFlags() {
		if dashed == l || strings.HasPrefix(dashed, l+"-") {
			return "--" + name + " " + notBuilt
		}
	}
	if near := nearest(name, known); near != "" {
		return "did you mean --" + near + "?"
	}
	return ""
}

func laterFlags() []string {
	places := []struct{ word, prefix string }{
		{"file", ""}, {"log", "log-"}, {"process", "unsafe-"}, {"listener", ""},
		{"client", "client-"}, {"rule", "allow-"}, {"to", "to-"}, {"unsafe", "unsafe-"},
	}
	var out []string
	for _, p := range places {
		for _, key := range strings.Fields(later[p.word]) {
			out = append(out, p.prefix+flagName(key))
		}
	}
	return out
}
