package credential

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// SCTExtension is that of a file with SCTs.
const SCTExtension = ".sct"

// SCTsBeside gives the file that may hold the SCTs of the certificate in a file of
// that name: site.sct for site.pem.
func SCTsBeside(name string) string {
	return strings.TrimSuffix(name, filepath.Ext(name)) + SCTExtension
}

// readSCTs gives what is in that file, a SignedCertificateTimestampList (RFC 6962,
// section 3.3).
func readSCTs(file string) ([][]byte, error) {
	data, _, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, rest, ok := cutPrefixed(data)
	if !ok || len(rest) > 0 || len(list) == 0 {
		return nil, fmt.Errorf("%s: is no list of SCTs: two bytes of length, then each SCT behind its own two (RFC 6962, section 3.3)", file)
	}
	var scts [][]byte
	for len(list) > 0 {
		var one []byte
		if one, list, ok = cutPrefixed(list); !ok || len(one) == 0 {
			return nil, fmt.Errorf("%s: the SCT number %d is cut off or empty", file, len(scts)+1)
		}
		scts = append(scts, one)
	}
	return scts, nil
}

// cutPrefixed takes what stands behind two bytes of length.
func cutPrefixed(b []byte) (head, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}
