package credential

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options say what to load.
type Options struct {
	Certs        []string // FILE, folder, env:VAR or cred:NAME
	Keys         []string // keys that are neither in a certificate's file nor beside it
	AllowKeyMode bool     // take keys that everybody can read, with a warning
	Now          time.Time
	Staple       Staple              // nil: nothing is stapled
	Env          func(string) string // nil: no environment
}

// Load reads certificates and finds their keys. Warnings are for the start line;
// they come with an error too.
func Load(o Options) (store *Store, warnings []string, err error) {
	if o.Env == nil {
		o.Env = func(string) string { return "" }
	}
	l := &loader{Options: o, keys: map[id]*held{}, judged: map[*file]bool{}}
	entries, err := l.load()
	if err != nil {
		return nil, l.warnings, err
	}
	for _, e := range entries {
		e.staples(o.Staple)
	}
	return newStore(entries), l.warnings, nil
}

type loader struct {
	Options
	files    []*source
	keys     map[id]*held
	named    []*held // of Options.Keys
	judged   map[*file]bool
	warnings []string
}

// source is a file that should hold a certificate.
type source struct {
	*file
	folder bool     // it lay in a folder, nobody named it
	looked []string // where else a key was looked for, and what was there
}

// held is a key and where it came from.
type held struct {
	key  crypto.Signer
	file *file
	used bool
}

func (l *loader) warn(format string, args ...any) {
	l.warnings = append(l.warnings, fmt.Sprintf(format, args...))
}

func (l *loader) load() ([]*entry, error) {
	for _, location := range l.Keys {
		if err := l.namedKey(location); err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
	}
	for _, location := range l.Certs {
		if err := l.gather(location); err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
	}
	entries, err := l.pairAll()
	if err != nil {
		return nil, fmt.Errorf("cert: %w", err)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("cert: no certificate with a key in %s", strings.Join(l.Certs, ", "))
	}
	for _, h := range l.named {
		if !h.used {
			l.warn("%s: fits none of the certificates", h.file.name)
		}
	}
	for _, e := range entries {
		l.warnAge(e)
	}
	return entries, nil
}

// pairAll keeps one of two files with the same leaf: the one with the longer
// chain, as certbot has cert.pem beside fullchain.pem.
func (l *loader) pairAll() ([]*entry, error) {
	var entries []*entry
	at := map[string]int{}
	for _, s := range l.files {
		e, err := l.pair(s)
		if err != nil {
			return nil, err
		}
		if e == nil {
			continue
		}
		raw := string(e.Chain[0].Raw)
		i, twice := at[raw]
		switch {
		case !twice:
			at[raw] = len(entries)
			entries = append(entries, e)
		case len(e.Chain) > len(entries[i].Chain):
			entries[i] = e
		}
	}
	return entries, nil
}

func (l *loader) read(location string) (*file, error) {
	data, info, err := Read(location, l.Env)
	if err != nil {
		return nil, err
	}
	f, err := parse(location, data)
	if err != nil {
		return nil, err
	}
	f.info = info
	return f, nil
}

func (l *loader) namedKey(location string) error {
	f, err := l.read(location)
	if err != nil {
		return err
	}
	if len(f.keys) == 0 {
		return fmt.Errorf("%s: holds a certificate and no key; are cert and key the wrong way round?", location)
	}
	held, err := l.hold(f)
	l.named = append(l.named, held...)
	return err
}

func (l *loader) hold(f *file) (all []*held, err error) {
	for _, k := range f.keys {
		i, err := idOfKey(k)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		h := &held{key: k, file: f}
		if l.keys[i] == nil {
			l.keys[i] = h
		}
		all = append(all, l.keys[i])
	}
	return all, nil
}

func (l *loader) gather(location string) error {
	if !strings.HasPrefix(location, "env:") && !strings.HasPrefix(location, "cred:") {
		if info, err := os.Stat(location); err == nil && info.IsDir() {
			return l.gatherFolder(location)
		}
	}
	f, err := l.read(location)
	if err != nil {
		return err
	}
	if len(f.certs) == 0 {
		return fmt.Errorf("%s: holds a key and no certificate; are cert and key the wrong way round?", location)
	}
	if _, err := l.hold(f); err != nil {
		return err
	}
	l.files = append(l.files, &source{file: f})
	return nil
}

// Extensions are those of the files in a folder that are looked at.
var Extensions = []string{".pem", ".crt", ".cer", ".key"}

func (l *loader) gatherFolder(dir string) error {
	list, err := os.ReadDir(dir) // in the order of names
	if err != nil {
		return explain(dir, err)
	}
	found := false
	for _, e := range list {
		name := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") || !slices.Contains(Extensions, filepath.Ext(name)) {
			continue
		}
		info, err := os.Stat(name) // behind a link
		if err != nil {
			return explain(name, err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		f, err := l.read(name)
		if err != nil {
			// One file of many; where it was needed, pairing says what it had looked at.
			l.warn("%v", err)
			continue
		}
		if _, err := l.hold(f); err != nil {
			return err
		}
		if len(f.certs) > 0 {
			l.files = append(l.files, &source{file: f, folder: true})
			found = true
		}
	}
	if !found {
		return fmt.Errorf("%s: no certificate in this folder; it is looked for in *.pem, *.crt, *.cer and *.key, not in sub-folders", dir)
	}
	return nil
}

// pair finds the leaf of s and its key; nil is a file that is not to be served.
func (l *loader) pair(s *source) (*entry, error) {
	if s.folder && isPlainCA(s.certs[0]) {
		return nil, nil
	}
	n, h := l.leafOf(s)
	if h == nil {
		l.lookBeside(s)
		n, h = l.leafOf(s)
	}
	if h == nil {
		return nil, l.noKey(s)
	}
	if n > 0 {
		l.warn("%s: the certificate of %s has to stand first in the file, and is number %d; it is sent first", s.name, label(s.certs[n]), n+1)
	}
	if err := l.judge(h.file); err != nil {
		return nil, err
	}
	h.used = true
	var scts [][]byte
	if s.info != nil {
		var err error
		if scts, err = readSCTs(SCTsBeside(s.name)); err != nil {
			return nil, err
		}
	}
	e := newEntry(Credential{Chain: l.order(s, n), Key: h.key, SCTs: scts}, l.Now)
	e.file = s.name
	return e, nil
}

// isPlainCA says that c only signs others: it has nobody's name.
func isPlainCA(c *x509.Certificate) bool {
	return c.IsCA && len(c.DNSNames) == 0 && len(c.IPAddresses) == 0 && len(c.URIs) == 0
}

// leafOf is the first certificate of s whose key we have. A CA's counts only
// where it stands first: its key may lie around for other reasons.
func (l *loader) leafOf(s *source) (int, *held) {
	for i, c := range s.certs {
		if i > 0 && c.IsCA {
			continue
		}
		if h := l.keys[idOfCert(c)]; h != nil {
			return i, h
		}
	}
	return 0, nil
}

// lookBeside reads the files that may hold the key of s by their names.
func (l *loader) lookBeside(s *source) {
	if s.info == nil {
		return
	}
	for _, name := range Beside(s.name) {
		f, err := l.read(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			s.looked = append(s.looked, name+" (not there)")
		case err != nil:
			s.looked = append(s.looked, err.Error())
		case len(f.keys) == 0:
			s.looked = append(s.looked, name+" (no key in it)")
		default:
			s.looked = append(s.looked, name+" (the key of another certificate)")
			l.hold(f) // what cannot be held has been said with it
		}
	}
}

// Beside gives the files that may hold the key of the certificate in a file of that
// name.
func Beside(name string) []string {
	dir, base := filepath.Split(name)
	ext := filepath.Ext(base)
	stem := strings.TrimSuffix(base, ext)
	names := []string{stem + ".key", stem + "-key.pem", stem + ".key.pem"}
	if ext != ".pem" {
		names = append(names, stem+".pem")
	}
	switch base {
	case "fullchain.pem":
		names = append(names, "privkey.pem")
	case "cert.pem":
		names = append(names, "privkey.pem", "key.pem")
	}
	for i := range names {
		names[i] = dir + names[i]
	}
	return names
}

// ErrUnpaired is in the error about a certificate whose key is not where it is
// looked for. Where one of two files has just been replaced, that is for a moment.
var ErrUnpaired = errors.New("certificate and key do not fit")

// unpaired leaves its text to who has more to say.
type unpaired struct{ text string }

func (u unpaired) Error() string     { return u.text }
func (u unpaired) Is(err error) bool { return err == ErrUnpaired }

func unpairedf(format string, args ...any) error { return unpaired{fmt.Sprintf(format, args...)} }

func (l *loader) noKey(s *source) error {
	leaf := s.certs[0]
	if len(s.keys) > 0 {
		return unpairedf("%s: the key in this file is not that of its certificate for %s; %s", s.name, label(leaf), compare(s.name, s.name))
	}
	for _, h := range l.named {
		if l.fitsNone(h) {
			return unpairedf("%s is not the key of %s (for %s): their public keys differ; %s", h.file.name, s.name, label(leaf), compare(s.name, h.file.name))
		}
	}
	for _, text := range s.looked {
		if name, ok := strings.CutSuffix(text, " (the key of another certificate)"); ok {
			return unpairedf("%s is not the key of %s (for %s): their public keys differ; %s", name, s.name, label(leaf), compare(s.name, name))
		}
	}
	where := "in the same file and in `key`"
	if len(s.looked) > 0 {
		where += ", and beside it in " + strings.Join(s.looked, ", ")
	}
	return unpairedf("%s: no key for the certificate for %s; it was looked for %s", s.name, label(leaf), where)
}

func (l *loader) fitsNone(h *held) bool {
	i, err := idOfKey(h.key)
	return err != nil || !slices.ContainsFunc(l.files, func(s *source) bool {
		return slices.ContainsFunc(s.certs, func(c *x509.Certificate) bool { return idOfCert(c) == i })
	})
}

func compare(cert, key string) string {
	return fmt.Sprintf("compare: openssl x509 -in %s -noout -pubkey; openssl pkey -in %s -pubout", cert, key)
}

// judge holds the mode of a file with a key in use against the rules, once.
func (l *loader) judge(f *file) error {
	if l.judged[f] {
		return nil
	}
	l.judged[f] = true
	refuse, warn := judgeMode(f.name, f.info)
	if refuse != "" {
		if !l.AllowKeyMode {
			return errors.New(refuse + "; unsafe.key_mode takes it as it is")
		}
		l.warn("unsafe.key_mode: %s", refuse)
	}
	if warn != "" {
		l.warn("%s", warn)
	}
	return nil
}

// order is the chain in the order it is sent: the leaf, then whoever issued what
// stands before (RFC 5246, section 7.4.2). What issued none of it is left out.
func (l *loader) order(s *source, leaf int) []*x509.Certificate {
	rest := slices.Delete(slices.Clone(s.certs), leaf, leaf+1)
	chain := []*x509.Certificate{s.certs[leaf]}
	for i := 0; i < len(chain); i++ {
		rest = slices.DeleteFunc(rest, func(c *x509.Certificate) bool {
			if string(c.RawSubject) != string(chain[i].RawIssuer) {
				return false
			}
			if !slices.ContainsFunc(chain, c.Equal) {
				chain = append(chain, c)
			}
			return true
		})
	}
	for _, c := range rest {
		if !c.Equal(chain[0]) {
			l.warn("%s: the certificate of %s issued none of the others and is not sent; each site needs a file of its own", s.name, label(c))
		}
	}
	return chain
}

func (l *loader) warnAge(e *entry) {
	leaf := e.Chain[0]
	left := leaf.NotAfter.Sub(l.Now)
	at := leaf.NotAfter.UTC().Format(time.RFC3339)
	switch {
	case left < 0:
		l.warn("%s: the certificate for %s expired %s ago, on %s; clients will refuse it", e.file, label(leaf), span(-left), at)
	case left < 14*24*time.Hour:
		l.warn("%s: the certificate for %s expires in %s, on %s", e.file, label(leaf), span(left), at)
	}
	if l.Now.Before(leaf.NotBefore) {
		l.warn("%s: the certificate for %s is not valid before %s; is the clock right?", e.file, label(leaf), leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	if w := weak(leaf); w != "" {
		l.warn("%s: the certificate for %s %s", e.file, label(leaf), w)
	}
}

func span(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	if d >= 2*time.Hour {
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d minutes", int(d.Minutes()))
}

// label is what the operator knows a certificate by.
func label(c *x509.Certificate) string {
	if names := NamesOf(c); len(names) > 0 {
		return fmt.Sprintf("%.100q", names[0])
	}
	return fmt.Sprintf("%.100q", c.Subject.String())
}
