package name

import "fmt"

// toASCII gives the A-label of a label. Turning a U-label into one takes the
// tables of UTS #46, which the module does not hold; a wrong table here would be
// a pattern that takes another name than it shows.
func toASCII(label string) (string, error) {
	for i := range len(label) {
		if label[i] >= 0x80 {
			return "", fmt.Errorf("%q is not ASCII: write its A-label, xn--..., as idn or a browser's address bar gives it", label)
		}
	}
	return label, nil
}
