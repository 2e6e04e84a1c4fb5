package name

import (
	"fmt"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// toASCII gives the A-label of a label as browsers look it up (UTS #46,
// non-transitional); ASCII stays as it is. What it maps to a dot or a star the
// caller refuses.
func toASCII(label string) (string, error) {
	for i := range len(label) {
		if label[i] < utf8.RuneSelf {
			continue
		}
		ascii, err := idna.Lookup.ToASCII(label)
		if err != nil || !utf8.ValidString(label) {
			return "", fmt.Errorf("%q is no internationalized label: write its A-label (xn--...)", label)
		}
		return ascii, nil
	}
	return label, nil
}
