package verify_test

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Netflix/bettertls/test-suites/certutil"
	"github.com/Netflix/bettertls/test-suites/nameconstraints"
	"github.com/Netflix/bettertls/test-suites/pathbuilding"
	cases "github.com/Netflix/bettertls/test-suites/test-case"

	"sallyport/verify"
)

// Netflix's cases of paths to be found and of name constraints, made by their own
// code. What they expect is what we do, in every one.
func TestBetterTLS(t *testing.T) {
	t.Parallel()
	root, key, err := certutil.GenerateSelfSignedCert("bettertls_trust_root")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now() // theirs
	pkix := verify.PKIX{Anchors: anchorsOf(t, root), From: "to.ca", Profile: verify.Private}
	count := 0
	for _, suite := range []cases.TestCaseProvider{pathbuilding.NewTestCaseProvider(), nameconstraints.NewTestCaseProvider()} {
		n, err := suite.GetTestCaseCount()
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			c, err := suite.GetTestCase(i)
			if err != nil {
				t.Fatal(err)
			}
			sent, err := c.GetCertificates(root, key)
			if err != nil {
				t.Fatal(err)
			}
			count++
			wants := slices.Contains([]cases.ExpectedResult{cases.EXPECTED_RESULT_PASS, cases.EXPECTED_RESULT_SOFT_PASS}, c.ExpectedResult())
			var chain []*x509.Certificate
			for _, der := range sent.Certificate {
				var cert *x509.Certificate
				if cert, err = x509.ParseCertificate(der); err != nil {
					break // crypto/tls refuses it then
				}
				chain = append(chain, cert)
			}
			if err == nil {
				_, err = pkix.Authenticate(t.Context(), &verify.Presented{Name: c.GetHostname(), Chain: chain, Now: at})
			}
			if wants != (err == nil) {
				t.Errorf("%s %d: %v, expected %s", suite.Name(), i, err, c.ExpectedResult())
			}
		}
	}
	if t.Logf("%d cases", count); count < 9572 {
		t.Errorf("%d cases, there were 9572", count)
	}
}

// pkits is one of NIST's vectors, as Go has them.
type pkits struct {
	Name                                                                        string
	CertPath, CRLPath                                                           []string
	ShouldValidate                                                              bool
	InitialPolicySet                                                            []string
	InitialPolicyMappingInhibit, InitialExplicitPolicy, InitialAnyPolicyInhibit bool
}

// plain says whether the vector asks what we do: any policy will do, and none must be.
func (v *pkits) plain() bool {
	return slices.Contains(v.InitialPolicySet, "anyPolicy") && !v.InitialPolicyMappingInhibit && !v.InitialExplicitPolicy && !v.InitialAnyPolicyInhibit
}

// NIST's Public Key Interoperability Test Suite. The vectors name one path each,
// which is presented to somebody who trusts its first certificate.
func TestPKITS(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "src/crypto/x509/testdata/nist-pkits")
	data, err := os.ReadFile(filepath.Join(dir, "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []pkits
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	run := 0
	for _, v := range vectors {
		if !v.plain() {
			continue
		}
		run++
		var path []*x509.Certificate
		for _, file := range v.CertPath {
			der, err := os.ReadFile(filepath.Join(dir, "certs", file))
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Logf("%s: %s: %v", v.Name, file, err)
				path = nil
				break
			}
			path = append(path, cert)
		}
		err := error(os.ErrInvalid)
		if len(path) > 0 {
			anchors := anchorsOf(t, path[0])
			slices.Reverse(path)
			pkix := verify.PKIX{Anchors: anchors, From: "client.ca", Profile: verify.Private}
			_, err = pkix.Authenticate(t.Context(), &verify.Presented{Role: verify.Client, Chain: path, Now: at})
		}
		id, _, _ := strings.Cut(v.Name, " ")
		switch why := strict[id]; {
		case v.ShouldValidate && why != "":
			if err == nil {
				t.Errorf("%s: %s, and it passes", v.Name, why)
			}
		case !v.ShouldValidate && ofRevocation(id):
			if err != nil {
				t.Errorf("%s: only its revocation is wrong with it: %v", v.Name, err)
			}
		case v.ShouldValidate != (err == nil):
			t.Errorf("%s: should validate %t: %v", v.Name, v.ShouldValidate, err)
		}
	}
	if t.Logf("%d of %d vectors", run, len(vectors)); run < 214 {
		t.Error("there were 214")
	}
}

// strict are vectors that should pass and do not: we take less than RFC 5280 does.
var strict = map[string]string{
	"4.1.4": "DSA is not taken", "4.1.5": "DSA is not taken",
	"4.3.3": "names are compared byte by byte", "4.3.4": "names are compared byte by byte", "4.3.5": "names are compared byte by byte",
	"4.3.10": "names are compared byte by byte", "4.3.11": "names are compared byte by byte",
	"4.6.15": "self-issued CAs count in a path's length", "4.6.17": "self-issued CAs count in a path's length",
	"4.13.1": directories, "4.13.4": directories, "4.13.5": directories, "4.13.6": directories, "4.13.11": directories,
	"4.13.14": directories, "4.13.18": directories, "4.13.19": directories, "4.13.27": directories,
	"4.13.25": "a host that is excluded also excludes all below it", "4.13.36": "a host that is excluded also excludes all below it",
	"4.14.4": relative, "4.14.5": relative, "4.14.29": relative,
}

const (
	directories = "constraints of directory names are not understood, and critical"
	relative    = "distribution points relative to an issuer do not parse"
)

// ofRevocation are vectors of which only a CRL says that they are bad.
func ofRevocation(id string) bool {
	for _, chapter := range []string{"4.4.", "4.14.", "4.15."} {
		// The negative serial number and the relative distribution point do not parse.
		if strings.HasPrefix(id, chapter) && id != "4.4.15" && id != "4.14.6" {
			return true
		}
	}
	return slices.Contains([]string{"4.5.2", "4.5.5", "4.5.7", "4.7.4", "4.7.5"}, id)
}
