package build

import (
	"cmp"
	"slices"
	"strings"

	"sallyport/config"
	"sallyport/credential"
	"sallyport/secure"
)

// expiries are those of all certificates that were loaded, each once.
func (b *builder) expiries() []credential.Expiry {
	var list []credential.Expiry
	for _, s := range b.stores {
		list = append(list, s.Expiries()...)
	}
	slices.SortFunc(list, func(x, y credential.Expiry) int {
		return cmp.Or(x.NotAfter.Compare(y.NotAfter), strings.Compare(x.File, y.File), strings.Compare(x.Name, y.Name))
	})
	return slices.Compact(list)
}

// TLSParams are what c amounts to, with its preset.
func TLSParams(c config.TLS) (secure.Params, error) {
	p, err := tlsParams(c)
	return p.Params, err
}
