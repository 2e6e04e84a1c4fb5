package build

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"sallyport/ct"
)

const (
	listAsk     = 30 * time.Second // for a list and its signature
	listAtStart = 5 * time.Second  // the same where the process waits for it
	listEvery   = 24 * time.Hour
	listRetry   = time.Minute // doubled until listSeldom
	listSeldom  = time.Hour
)

// startLists fetches what was never had, since flows would be refused until it is
// there, and has the rest renewed while the program runs.
func (b *builder) startLists() {
	s := b.lists
	if s == nil || b.o.DryRun {
		return
	}
	if !s.used {
		b.warn("ct_log_list is not used: no route has client.ct or to.ct")
		return
	}
	b.fetchLists()
	b.program.Work = append(b.program.Work, s.run)
}

// fetchLists fetches what was never had.
func (b *builder) fetchLists() {
	if b.lists == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), listAtStart)
	defer cancel()
	for _, l := range b.lists.all {
		if l.list != nil {
			continue
		}
		if err := b.lists.renew(ctx, l); err != nil {
			b.warn("ct_log_list: %s: %v; it is tried again, and until then what requires it is refused", l.from, err)
		}
	}
}

// run renews the lists until ctx ends.
func (s *logLists) run(ctx context.Context) {
	s.say()
	for {
		wait := time.NewTimer(s.wait())
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		for _, l := range s.all {
			if !l.url || time.Until(l.due) > 0 {
				continue
			}
			if err := s.renew(ctx, l); err != nil && ctx.Err() == nil {
				s.log.Warn("list of CT logs not renewed", "from", l.from, "err", err.Error(), "again_in", time.Until(l.due).Round(time.Second).String())
			}
		}
		s.say()
	}
}

// wait is until the next list is due, a day at most.
func (s *logLists) wait() time.Duration {
	d := listEvery
	for _, l := range s.all {
		if l.url {
			d = min(d, max(time.Until(l.due), 0))
		}
	}
	return d
}

// renew fetches one list and puts it in force, or leaves what there is.
func (s *logLists) renew(ctx context.Context, l *logList) error {
	ctx, cancel := context.WithTimeout(ctx, listAsk)
	defer cancel()
	err := s.fetch(ctx, l)
	if err != nil {
		l.retry = min(max(2*l.retry, listRetry), listSeldom)
		l.due = time.Now().Add(jitter(l.retry))
		return err
	}
	l.retry, l.due = 0, time.Now().Add(jitter(listEvery))
	s.set()
	return nil
}

func (s *logLists) fetch(ctx context.Context, l *logList) error {
	at, err := url.Parse(l.from)
	if err != nil {
		return err
	}
	data, err := get(ctx, s.client, at, ct.MaxList)
	if err != nil {
		return err
	}
	at.Path = signatureOf(at.Path)
	sig, err := get(ctx, s.client, at, ct.MaxSignature)
	if err != nil {
		return err
	}
	list, err := s.check(data, sig)
	if err != nil {
		return err
	}
	if l.list != nil && list.Time.Before(l.list.Time) {
		// Old lists have good signatures too.
		return fmt.Errorf("the list there is of %s, and we have one of %s", list.Time.Format(time.RFC3339), l.list.Time.Format(time.RFC3339))
	}
	l.list = list
	if err := s.memory.put(&keptList{URL: l.from, Fetched: s.now(), List: data, Signature: sig}); err != nil {
		s.log.Warn(err.Error())
	}
	return nil
}

func get(ctx context.Context, client *http.Client, at *url.URL, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", at.Redacted(), resp.StatusCode)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", at.Redacted(), err)
	}
	if int64(len(b)) > limit {
		return nil, errors.New(at.Redacted() + " has more than " + fmt.Sprint(limit) + " bytes")
	}
	return b, nil
}

// say tells the age of each list that is new here, and of each that is too old.
func (s *logLists) say() {
	for _, l := range s.all {
		if l.list == nil {
			continue
		}
		age := s.now().Sub(l.list.Time)
		args := []any{"from", l.from, "logs", len(l.list.Logs), "age_days", int(age.Hours() / 24)}
		switch fresh := s.memory.news(l.from, l.list.Time); {
		case age > ct.MaxAge:
			s.log.Warn("list of CT logs too old: ct enforces nothing until it is renewed", args...)
		case fresh:
			s.log.Info("list of CT logs", args...)
		}
	}
}

// jitter is d, a tenth more or less, so that many who began at once do not ask at once.
func jitter(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:])
	span := d / 5
	if span <= 0 {
		return d
	}
	return d - span/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(span))
}
