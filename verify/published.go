package verify

import (
	"context"
	"slices"

	"sallyport/dane"
)

// PassesBy says by which of the records in s a chain of our own passes, as 3 1 1, and
// "" where none lets it. What the anchors of clients say of it, which they ask for
// usages 0 and 1 as well, is not known here.
func PassesBy(ctx context.Context, s *dane.Service, p *Presented) string {
	for _, rec := range dane.Usable(s.Records) {
		if rec.Usage != dane.DANETA {
			if slices.ContainsFunc(rec.Concerns(p.Chain), rec.Matches) {
				return rec.Params()
			}
			continue
		}
		only := *s
		only.Records = []dane.Record{rec}
		if _, err := (&DANE{Records: fixed{&only}, Profile: Private}).Authenticate(ctx, p); err == nil {
			return rec.Params()
		}
	}
	return ""
}

// fixed has been looked up already.
type fixed struct{ s *dane.Service }

func (f fixed) Service(context.Context, string, uint16, string) (*dane.Service, error) {
	return f.s, nil
}
