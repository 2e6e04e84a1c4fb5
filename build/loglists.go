package build

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"sallyport/config"
	"sallyport/ct"
	"sallyport/verify"
)

// logLists are what ct_log_list names: files that are the operator's own word, and
// URLs whose lists are signed by one of keys.
type logLists struct {
	logs *ct.Logs
	keys []crypto.PublicKey
	all  []*logList // in the order of the file
	used bool

	memory *listMemory
	client *http.Client
	now    func() time.Time
	log    *slog.Logger
}

type logList struct {
	from  string // as the file says
	url   bool
	list  *ct.List      // nil where none could be had yet
	due   time.Time     // of a URL: when it is fetched next, by the process's own clock
	retry time.Duration // after the next failure
}

// logLists reads the files, and what was kept of the URLs.
func (b *builder) logLists() error {
	entries := b.file.CTLogList
	if len(entries) == 0 {
		return nil
	}
	s := &logLists{logs: new(ct.Logs), memory: b.lasting.lists, client: b.operators(), now: b.now, log: b.o.Log}
	files := map[string][]byte{} // keys come first, wherever they stand
	for _, e := range entries {
		if isURL(e) {
			s.all = append(s.all, &logList{from: e, url: true})
			continue
		}
		data, err := b.read(e)
		if err != nil {
			return fmt.Errorf("ct_log_list: %w", err)
		}
		keys, err := ct.ParseKeys(data)
		if err != nil {
			return fmt.Errorf("ct_log_list: %s: %w", e, err)
		}
		if s.keys = append(s.keys, keys...); len(keys) == 0 {
			files[e] = data
			s.all = append(s.all, &logList{from: e})
		}
	}
	if len(s.all) == 0 {
		return fileError("ct_log_list names keys, and no list that they would check\nhint: ct_log_list: [google.pem, https://www.gstatic.com/ct/log_list/v3/log_list.json]")
	}
	for _, l := range s.all {
		if !l.url {
			if err := b.listFile(s, l, files[l.from]); err != nil {
				return fmt.Errorf("ct_log_list: %s: %w", l.from, err)
			}
			continue
		}
		if len(s.keys) == 0 {
			return fileError("ct_log_list: %s is fetched over a network, and there is no key that checks it\nhint: add the PEM file with the PUBLIC KEY of who signs the list", l.from)
		}
		if b.file.StateDir == "" {
			b.warn("no state_dir: the lists of CT logs are fetched anew at each start")
		}
		if warning := s.recall(l); warning != "" {
			b.warn("%s", warning)
		}
	}
	s.set()
	b.lists = s
	return nil
}

func isURL(s string) bool { return strings.Contains(s, "://") }

// listFile reads a file, and checks it where a signature stands beside it and
// there is a key to do so.
func (b *builder) listFile(s *logLists, l *logList, data []byte) (err error) {
	if len(s.keys) > 0 && !strings.HasPrefix(l.from, "env:") && !strings.HasPrefix(l.from, "cred:") {
		sig, err := b.read(signatureOf(l.from))
		if err == nil {
			err = ct.VerifyList(data, sig, s.keys)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", signatureOf(l.from), err)
		}
	}
	l.list, err = ct.ParseList(data)
	return err
}

// signatureOf is where the signature of a list stands, as Google has it.
func signatureOf(list string) string { return strings.TrimSuffix(list, ".json") + ".sig" }

// recall takes what was fetched before, by this process or an earlier one.
func (s *logLists) recall(l *logList) (warning string) {
	kept, warning := s.memory.get(l.from)
	if kept == nil {
		return warning
	}
	list, err := s.check(kept.List, kept.Signature)
	if err != nil {
		return fmt.Sprintf("ct_log_list: what was kept of %s is discarded: %v", l.from, err)
	}
	l.list = list
	l.due = time.Now().Add(min(kept.Fetched.Add(jitter(listEvery)).Sub(s.now()), listEvery))
	return ""
}

func (s *logLists) check(data, sig []byte) (*ct.List, error) {
	if err := ct.VerifyList(data, sig, s.keys); err != nil {
		return nil, err
	}
	return ct.ParseList(data)
}

// set puts what there is in force.
func (s *logLists) set() {
	var all []*ct.List
	for _, l := range s.all {
		if l.list != nil {
			all = append(all, l.list)
		}
	}
	if all != nil {
		s.logs.Set(all...)
	}
}

// transparent adds the check that want asks for.
func (b *builder) transparent(checks []verify.Check, side string, want config.CT) ([]verify.Check, error) {
	if want == config.CTOff {
		return checks, nil
	}
	if b.lists == nil {
		return nil, fileError("%s.ct is %s, and there is no list of logs to judge by\nhint: ct_log_list: [google.pem, https://www.gstatic.com/ct/log_list/v3/log_list.json], the first with the key that signs the second", side, want)
	}
	b.lists.used = true
	return append(checks, verify.Transparency(b.lists.logs, want == config.CTRequire)), nil
}
