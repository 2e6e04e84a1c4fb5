package dane

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// What is not there is shown by records of what is: an NSEC record names two
// neighbours between which there is nothing (RFC 4034, section 4), an NSEC3 record
// the hashes of two names (RFC 5155). Here is what such records say once their
// signatures hold; nothing here asks or verifies.

const (
	// RFC 9276, section 3.2, leaves the limit open and takes what is above it for
	// not signed; the zone's own signature says how many they are.
	maxIterations = 100
	maxHashes     = 256 // NSEC3, for one look-up (CVE-2023-50868)
)

// finding is what records of neighbours show of a name and a type.
type finding uint8

const (
	unshown  finding = iota // nothing
	noData                  // the name has no such records, and is no zone of its own
	noName                  // there is no such name, nor one below it
	unsigned                // whatever there is has no signatures
)

// neighbours are NSEC and NSEC3 records of one zone, signed by it.
type neighbours struct {
	zone   string
	nsec   []*dns.NSEC
	nsec3  []*dns.NSEC3
	hashes *int // that may still be made
}

// denies finds what is shown of there being no records of that type at name, which is
// in the zone (RFC 4035, section 5.4; RFC 5155, section 8).
func (n *neighbours) denies(name string, qtype uint16) (finding, error) {
	if f := n.byNSEC(name, qtype); f != unshown {
		return f, nil
	}
	return n.byNSEC3(name, qtype)
}

// nothingCloser finds whether a wildcard stands for name: there is no name that shares
// more than that many labels with it (RFC 4035, section 5.3.4; RFC 5155, section 8.8).
func (n *neighbours) nothingCloser(name string, labels int) (finding, error) {
	for _, r := range n.nsec {
		if covers(r, name) && !below(lower(r.NextDomain), name) && encloser(r, name) == labels {
			return noName, nil
		}
	}
	set := n.alike()
	if len(set) == 0 {
		return unshown, nil
	}
	if set[0].Iterations > maxIterations {
		return unsigned, nil
	}
	h, err := n.hash(suffix(name, labels+1), set[0])
	if err != nil {
		return unshown, err
	}
	return gap(set, h), nil
}

func (n *neighbours) byNSEC(name string, qtype uint16) finding {
	for _, r := range n.nsec {
		if lower(r.Hdr.Name) == name {
			return without(r.TypeBitMap, qtype)
		}
	}
	for _, r := range n.nsec {
		if !covers(r, name) {
			continue
		}
		if below(lower(r.NextDomain), name) {
			return noData // names below it only: an empty non-terminal
		}
		wildcard := "*." + strings.TrimPrefix(suffix(name, encloser(r, name)), ".")
		for _, w := range n.nsec {
			switch {
			case lower(w.Hdr.Name) == wildcard:
				return unless(without(w.TypeBitMap, qtype), unsigned)
			case covers(w, wildcard):
				return noName
			}
		}
	}
	return unshown
}

func (n *neighbours) byNSEC3(name string, qtype uint16) (finding, error) {
	set := n.alike()
	if len(set) == 0 {
		return unshown, nil
	}
	if set[0].Iterations > maxIterations {
		return unsigned, nil
	}
	// The closest name that is there, and the one below it that is not (section 8.3).
	var closer string
	for at := name; ; at = suffix(at, dns.CountLabel(at)-1) {
		h, err := n.hash(at, set[0])
		if err != nil {
			return unshown, err
		}
		if r := owner(set, h); r != nil {
			if at == name {
				return without(r.TypeBitMap, qtype), nil
			}
			if leavesZone(r.TypeBitMap) {
				return unshown, nil
			}
			h, err = n.hash("*."+strings.TrimPrefix(at, "."), set[0])
			if err != nil {
				return unshown, err
			}
			return n.nothingAt(set, closer, h, qtype)
		}
		if at == n.zone {
			return unshown, nil
		}
		closer = at
	}
}

// nothingAt says that closer is not there, and what the wildcard beside it has.
func (n *neighbours) nothingAt(set []*dns.NSEC3, closer, wildcard string, qtype uint16) (finding, error) {
	h, err := n.hash(closer, set[0])
	if err != nil {
		return unshown, err
	}
	if f := gap(set, h); f != noName {
		return f, nil
	}
	if w := owner(set, wildcard); w != nil {
		return unless(without(w.TypeBitMap, qtype), unsigned), nil
	}
	return unless(gap(set, wildcard), unsigned), nil
}

// alike are the NSEC3 records to go by: of the one kind of hash, with no flag but
// opt-out, and with the same parameters (RFC 5155, sections 8.1 and 8.2).
func (n *neighbours) alike() []*dns.NSEC3 {
	var set []*dns.NSEC3
	for _, r := range n.nsec3 {
		if r.Hash != dns.SHA1 || r.Flags&^1 != 0 || len(r.NextDomain) != 32 {
			continue
		}
		if len(set) == 0 || r.Iterations == set[0].Iterations && strings.EqualFold(r.Salt, set[0].Salt) {
			set = append(set, r)
		}
	}
	return set
}

func (n *neighbours) hash(name string, like *dns.NSEC3) (string, error) {
	if *n.hashes--; *n.hashes < 0 {
		return "", fmt.Errorf("more than %d names would have to be hashed (NSEC3)", maxHashes)
	}
	return dns.HashName(name, like.Hash, like.Iterations, like.Salt), nil
}

// owner is the record of a name that is there, by its hash.
func owner(set []*dns.NSEC3, hash string) *dns.NSEC3 {
	for _, r := range set {
		if ownHash(r) == hash {
			return r
		}
	}
	return nil
}

// gap is noName where the hash falls between two neighbours, and unsigned where such
// names may be zones that are not signed (opt-out; RFC 5155, sections 6 and 9.2).
func gap(set []*dns.NSEC3, hash string) finding {
	for _, r := range set {
		from, to := ownHash(r), strings.ToUpper(r.NextDomain)
		last := from >= to // the next one is the zone's first
		if after, before := from < hash, hash < to; after && before || last && (after || before) {
			if r.Flags&1 != 0 {
				return unsigned
			}
			return noName
		}
	}
	return unshown
}

func ownHash(r *dns.NSEC3) string {
	label, _, _ := strings.Cut(r.Hdr.Name, ".")
	return strings.ToUpper(label)
}

// without is what the types of a name say of one that is asked for.
func without(types []uint16, qtype uint16) finding {
	ns, soa := slices.Contains(types, dns.TypeNS), slices.Contains(types, dns.TypeSOA)
	switch {
	// Of a name where a zone begins the parent has the DS record, and the zone itself
	// all the others (RFC 6840, section 4.1).
	case qtype == dns.TypeDS && soa, qtype != dns.TypeDS && ns && !soa:
		return unshown
	case slices.Contains(types, qtype), slices.Contains(types, dns.TypeCNAME):
		return unshown
	case qtype == dns.TypeDS && ns:
		return unsigned
	}
	return noData
}

// leavesZone says of a name's types that who is below it is in another zone, or found
// under another name (RFC 6840, section 4.1).
func leavesZone(types []uint16) bool {
	return slices.Contains(types, dns.TypeDNAME) ||
		slices.Contains(types, dns.TypeNS) && !slices.Contains(types, dns.TypeSOA)
}

// covers says that name is not there, unless as an empty non-terminal: it comes after
// the record's name and before the next one.
func covers(r *dns.NSEC, name string) bool {
	from, to := lower(r.Hdr.Name), lower(r.NextDomain)
	if below(name, from) && leavesZone(r.TypeBitMap) {
		return false
	}
	return compare(from, name) < 0 && (compare(name, to) < 0 || compare(from, to) >= 0)
}

// encloser counts the labels of the closest name to one that is covered which is
// there: its neighbours have the most in common with it.
func encloser(r *dns.NSEC, name string) int {
	return max(dns.CompareDomainName(name, r.Hdr.Name), dns.CompareDomainName(name, r.NextDomain))
}

func unless(f, not finding) finding {
	if f == not {
		return unshown
	}
	return f
}

func lower(name string) string { return dns.CanonicalName(name) }

// below is strictly so.
func below(name, above string) bool { return name != above && dns.IsSubDomain(above, name) }

// suffix is what the last labels of a name are.
func suffix(name string, labels int) string {
	at := dns.Split(name)
	if labels <= 0 {
		return "."
	}
	return name[at[max(len(at)-labels, 0)]:]
}

// compare has names in canonical order (RFC 4034, section 6.1): by their labels from
// the right, as octets.
func compare(a, b string) int {
	return slices.CompareFunc(octets(a), octets(b), bytes.Compare)
}

// octets are the labels of a name, the last one first. No name is too long: each came
// out of a message.
func octets(name string) [][]byte {
	wire := make([]byte, 256)
	end, err := dns.PackDomainName(name, wire, 0, nil, false)
	if err != nil {
		return nil
	}
	var labels [][]byte
	for at := 0; at < end && wire[at] != 0; at += 1 + int(wire[at]) {
		labels = append(labels, wire[at+1:at+1+int(wire[at])])
	}
	slices.Reverse(labels)
	return labels
}
