package revoke

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"testing"
	"time"

	"sallyport/internal/ca"
)

// FuzzPSS holds what is taken as RSA-PSS against crypto/x509, which has to verify it.
func FuzzPSS(f *testing.F) {
	for _, s := range []string{
		"3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120", // SHA-256
		"3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130", // SHA-384
		"3030a00d300b0609608648016503040203a11a301806092a864886f70d010108300b0609608648016503040203a203020140",         // SHA-512
		"3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020101",
		"3039a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120a303020102",
		"3000", "0500", "",
	} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	good, err := ca.TestAt(f, now).CRL(now, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		id := pkix.AlgorithmIdentifier{Algorithm: oidPSS}
		if rest, err := asn1.Unmarshal(params, &id.Parameters); err != nil || len(rest) > 0 {
			id.Parameters = asn1.RawValue{}
		}
		ours, err := algorithmOf(id)
		if (ours == 0) == (err == nil) {
			t.Fatalf("%v with %v", ours, err)
		}
		list, err := x509.ParseRevocationList(signedAs(t, good, id))
		if err == nil && list.SignatureAlgorithm != ours {
			t.Fatalf("%v for us, %v for crypto/x509", ours, list.SignatureAlgorithm)
		}
	})
}

// signedAs is a CRL with another name of how it is signed, which stands in it twice.
func signedAs(t *testing.T, crl []byte, id pkix.AlgorithmIdentifier) []byte {
	t.Helper()
	var signed struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	der, err := asn1.Marshal(id)
	if err == nil {
		err = unmarshal(crl, &signed)
	}
	if err != nil {
		t.Fatal(err)
	}
	tbs := asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Replace(signed.TBS.Bytes, signed.Algorithm.FullBytes, der, 1)}
	if signed.TBS.FullBytes, err = asn1.Marshal(tbs); err != nil {
		t.Fatal(err)
	}
	signed.Algorithm.FullBytes = der
	crl, err = asn1.Marshal(signed)
	if err != nil {
		t.Fatal(err)
	}
	return crl
}
