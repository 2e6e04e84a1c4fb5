package credential

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
)

// file is what was read at one location.
type file struct {
	name  string
	info  os.FileInfo // nil where there is no mode to judge
	certs []*x509.Certificate
	keys  []crypto.Signer
}

// parse reads PEM. A file may hold anything else besides, as long as a block of
// it is whole.
func parse(name string, data []byte) (*file, error) {
	f := &file{name: name}
	rest := data
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: certificate %d cannot be read: %w", name, len(f.certs)+1, err)
			}
			f.certs = append(f.certs, c)
			continue
		}
		if !strings.HasSuffix(b.Type, "PRIVATE KEY") {
			continue // EC PARAMETERS, DH PARAMETERS
		}
		key, err := parseKey(name, b)
		if err != nil {
			return nil, err
		}
		f.keys = append(f.keys, key)
	}
	if bytes.Contains(rest, []byte("-----BEGIN")) {
		return nil, fmt.Errorf("%s: a PEM block is cut off or damaged", name)
	}
	if len(f.certs) == 0 && len(f.keys) == 0 {
		return nil, foreign(name, data)
	}
	return f, nil
}

// foreign guesses what it is that is no PEM.
func foreign(name string, data []byte) error {
	switch {
	case len(data) == 0:
		return fmt.Errorf("%s: is empty", name)
	case data[0] == 0x30 && (strings.HasSuffix(name, ".p12") || strings.HasSuffix(name, ".pfx")):
		return fmt.Errorf("%s: is PKCS #12, not PEM: openssl pkcs12 -in %s -nodes -out site.pem", name, name)
	case data[0] == 0x30:
		return fmt.Errorf("%s: is DER, not PEM: openssl x509 -inform der -in %s -out site.pem, or openssl pkey -inform der for a key", name, name)
	}
	return fmt.Errorf("%s: holds neither a certificate nor a key in PEM (-----BEGIN ...-----)", name)
}

func parseKey(name string, b *pem.Block) (crypto.Signer, error) {
	var (
		key any
		err error
	)
	switch {
	case b.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(b.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, fmt.Errorf("%s: the key is encrypted, and nobody is there to type a passphrase: openssl pkey -in %s -out plain.key && chmod 600 plain.key", name, name)
	case b.Type == "OPENSSH PRIVATE KEY":
		return nil, fmt.Errorf("%s: is a key of OpenSSH's own form: on a copy of it, ssh-keygen -p -m PKCS8 -f COPY", name)
	case b.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case b.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	case b.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	default:
		return nil, fmt.Errorf("%s: a %q is not taken; RSA, ECDSA and Ed25519 keys are", name, b.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: the key cannot be read: %w", name, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a %T cannot sign; RSA, ECDSA and Ed25519 keys can", name, key)
	}
	return signer, nil
}

// id is the SHA-256 of a SubjectPublicKeyInfo, by which keys and certificates find each other.
type id [32]byte

func idOfKey(k crypto.Signer) (id, error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	return sha256.Sum256(der), err
}

func idOfCert(c *x509.Certificate) id { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

func weak(c *x509.Certificate) string {
	if k, ok := c.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() < 2048 {
		return fmt.Sprintf("has an RSA key of %d bits, which many clients refuse", k.N.BitLen())
	}
	return ""
}
