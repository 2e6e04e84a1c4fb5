package testca

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"

	"sallyport/internal/ca"
)

// publicRSA is a key of which nobody needs the private half.
func publicRSA(bits, e int) ca.Option {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits-1)))
	if err != nil {
		panic(err)
	}
	n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
	return ca.Public(&rsa.PublicKey{N: n, E: e})
}

// spki builds a SubjectPublicKeyInfo that crypto/x509 does not marshal.
func spki(oid asn1.ObjectIdentifier, params any, key []byte) ca.Option {
	id := pkix.AlgorithmIdentifier{Algorithm: oid}
	if params != nil {
		raw, err := asn1.Marshal(params)
		if err != nil {
			panic(err)
		}
		id.Parameters = asn1.RawValue{FullBytes: raw}
	}
	der, err := asn1.Marshal(struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}{id, asn1.BitString{Bytes: key, BitLength: 8 * len(key)}})
	if err != nil {
		panic(err)
	}
	return ca.SPKI(der)
}

var (
	oidDSA        = asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}
	oidEC         = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidBrainpool  = asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7} // brainpoolP256r1
	oidEd448      = asn1.ObjectIdentifier{1, 3, 101, 113}
	oidMD4WithRSA = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 3}
	oidPSS        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
)

func keyCases() []Case {
	cases := []Case{
		{"IC-27", "RSA 1024", all(weakKey), nil, leaf(ca.RSA(1024))},
		{"IC-27", "RSA 2047", all(weakKey), nil, leaf(publicRSA(2047, 65537))},
		{"IC-27", "RSA 2049", all(weakKey), nil, leaf(publicRSA(2049, 65537))},
		{"IC-28", "root RSA 1024", all(weakKey), nil, under(ca.RSA(1024))},
		{"IC-28", "intermediate RSA 1024", all(weakKey), nil, below(ca.RSA(1024))},
		{"IC-28", "root RSA 512", all(weakKey), nil, under(ca.RSA(512))},
		{"IC-28", "intermediate RSA 768", all(weakKey), nil, below(ca.RSA(768))},
		{"IC-29", "e=1", all(weakKey), nil, leaf(publicRSA(2048, 1))},
		{"IC-29", "e=3", all(weakKey), nil, leaf(publicRSA(2048, 3))},
		{"IC-29", "even e", all(weakKey), nil, leaf(publicRSA(2048, 65538))},
		{"IC-29", "RSA 16384", all(weakKey), nil, leaf(publicRSA(16384, 65537))},
		{"IC-29", "RSA 16384 in the chain", all(weakKey), nil, func(m *Made) {
			m.send(m.root.Intermediate().Leaf(good), m.root.Leaf(good, publicRSA(16384, 65537)).Cert)
		}},
		{"IC-30", "P-224", all(weakKey), nil, leaf(ca.ECDSA(elliptic.P224()))},
		{"IC-30", "DSA", all(weakKey), nil, leaf(spki(oidDSA, struct{ P, Q, G *big.Int }{big.NewInt(23), big.NewInt(11), big.NewInt(4)}, []byte{2, 1, 8}))},
		{"IC-30", "Ed448", all(weakKey), nil, leaf(spki(oidEd448, nil, make([]byte, 57)))},
		{"IC-30", "brainpool", all(weakKey), nil, leaf(unparsed, spki(oidEC, oidBrainpool, append([]byte{4}, make([]byte, 64)...)))},
		{"IC-30", "a point that is on no curve", all(invalid), nil, leaf(unparsed, spki(oidEC, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, append([]byte{4}, make([]byte, 64)...)))},
	}
	known := func(m *Made) *ca.Leaf { return m.root.Leaf(good, ca.SPKI(eDellRoot())) }
	cases = append(cases, // nobody here can sign with a distrusted key
		Case{"IC-49", "a key that is in everybody's hands", all(distrusted), nil, func(m *Made) { m.send(known(m)) }},
		Case{"IC-49", "a key that is in everybody's hands, imported", all(distrusted), nil, func(m *Made) {
			l := known(m)
			m.Anchors = []*x509.Certificate{l.Cert}
			m.send(l)
		}})
	for _, bits := range []int{512, 768, 1016} {
		cases = append(cases, Case{"IC-26", fmt.Sprintf("RSA %d", bits), all(weakKey), nil, leaf(ca.RSA(bits))})
	}
	return cases
}

// eDellRoot is the public key of the CA of that name, whose private key was in
// every computer that its maker sold in 2015.
func eDellRoot() []byte {
	der, err := base64.StdEncoding.DecodeString("MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAvdEmDW7NW4RfQfDhdYbOzqgj1b6jsdl1V0EwxVvgbNvi5mMJM2Ns/Hhvws0UvW4CtS37" +
		"lVUxAOw5NjcuD9d79Q26RjZv7SWVQ7PMFhiluwVxyjifpKxO8OE2Lm36Q+jtzbdmtgE+Y67zZ4Qnpxq+z+3f277AU6RdfC9EKIcD+VbI1Y0Q+HXv5sIQ/erk" +
		"34mtX7oejfNA8S/lBQlh2ZewyYPYIxCiN5BSPrwn3U/nDkEqO6sbTGOK/OFKiJ73KbtVHAsWNZJxG7D/1dXoIupPIvnGuqKIOnW5M66o2Pe7HK2z2hxuygle" +
		"7GPmIRiRIzWe8u6kS/6WDL1arMgQUybWXwIDAQAB")
	if err != nil {
		panic(err)
	}
	return der
}

func signatureCases() []Case {
	oldRSA := func(opt ca.Option, deep bool) func(*Made) {
		return func(m *Made) {
			root := ca.TestAt(m.t, m.now, ca.SharedRSA())
			m.trust(root)
			if deep {
				m.send(root.Intermediate(opt).Leaf(good))
				return
			}
			m.send(root.Leaf(good, opt))
		}
	}
	return []Case{
		{"IC-31", "MD5 on the leaf", all(weakSig), nil, oldRSA(ca.MD5(), false)},
		{"IC-31", "MD5 on the intermediate", all(weakSig), nil, oldRSA(ca.MD5(), true)},
		{"IC-31", "MD4 on the leaf", all(weakSig), nil, leaf(ca.TBS(func(t *ca.TBSCertificate) {
			t.Signature = pkix.AlgorithmIdentifier{Algorithm: oidMD4WithRSA, Parameters: asn1.NullRawValue}
		}))},
		{"IC-32", "RSA-PSS with its defaults, which are SHA-1's, on the leaf", all(weakSig), nil, leaf(ca.TBS(func(t *ca.TBSCertificate) {
			t.Signature = pkix.AlgorithmIdentifier{Algorithm: oidPSS, Parameters: asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true}}
		}))},
		{"IC-32", "SHA-1 on the leaf", all(weakSig), nil, oldRSA(ca.SHA1(), false)},
		{"IC-32", "SHA-1 on the intermediate", all(weakSig), nil, oldRSA(ca.SHA1(), true)},
		{"IC-32", "ECDSA with SHA-1 on the leaf", all(weakSig), nil, leaf(ca.SHA1())},
		{"IC-32", "ECDSA with SHA-1 on the intermediate", all(weakSig), nil, below(ca.SHA1())},
		{"IC-33", "SHA-1 on the root", all(pass), nil, under(ca.SharedRSA(), ca.SHA1())},
		{"IC-33", "MD5 on the root", all(pass), nil, under(ca.SharedRSA(), ca.MD5())},
		{"IC-35", "another key than the certificate's", all(handshakeFailed), nil, func(m *Made) {
			m.send(m.root.Leaf(good))
			m.Key = crypto.Signer(newKey(m))
		}},
	}
}
