package secure

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"sallyport/flow"
	"sallyport/wire"
)

// ECHKeys are the private keys and configurations of one listener's encrypted
// ClientHello (RFC 9849). A nil *ECHKeys has none.
//
// crypto/tls opens the hello in its handshake, which is after the route has been
// decided on. So it is opened here first, by the same rules and the same HPKE; the
// handshake must then come to the same name, or the flow ends.
type ECHKeys struct{ configs []echConfig }

// echConfig is one ECHConfig and its key.
type echConfig struct {
	raw       []byte
	id        uint8
	kem       uint16
	publicKey []byte
	key       hpke.PrivateKey
	keyBytes  []byte
}

const (
	extECH                = 0xfe0d // RFC 9849, section 5; also the version of its ECHConfig
	extECHOuterExtensions = 0xfd00 // RFC 9849, section 5.1
	echOuter              = 0
	echInner              = 1
	pemECHConfig          = "ECHCONFIG"
	pemPrivateKey         = "PRIVATE KEY"
)

// LoadECH reads PEM texts (RFC 9934): PRIVATE KEY and ECHCONFIG, in any order and
// number. Keys and configurations are matched by public key; one without the other
// is an error.
func LoadECH(texts [][]byte) (*ECHKeys, error) {
	k := &ECHKeys{}
	var keys []*ecdh.PrivateKey
	for _, text := range texts {
		for {
			var block *pem.Block
			if block, text = pem.Decode(text); block == nil {
				break
			}
			switch block.Type {
			case pemPrivateKey:
				key, err := parseECHKey(block.Bytes)
				if err != nil {
					return nil, err
				}
				keys = append(keys, key)
			case pemECHConfig:
				configs, err := parseECHConfigs(block.Bytes)
				if err != nil {
					return nil, err
				}
				k.add(configs)
			default:
				return nil, fmt.Errorf("ECH: a PEM block %q, where only %q and %q belong", block.Type, pemPrivateKey, pemECHConfig)
			}
		}
	}
	if len(k.configs) == 0 {
		return nil, fmt.Errorf("ECH: no PEM block %q of a version that we speak (RFC 9849)", pemECHConfig)
	}
	return k, k.match(keys)
}

func parseECHKey(der []byte) (*ecdh.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("ECH: private key: %w", err)
	}
	switch key := key.(type) {
	case *ecdh.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key.ECDH()
	}
	return nil, fmt.Errorf("ECH: a private key of type %T; X25519 or P-256 is needed", key)
}

// add leaves out what another file has also.
func (k *ECHKeys) add(configs []echConfig) {
	for _, c := range configs {
		if !slices.ContainsFunc(k.configs, func(o echConfig) bool { return bytes.Equal(o.raw, c.raw) }) {
			k.configs = append(k.configs, c)
		}
	}
}

func (k *ECHKeys) match(keys []*ecdh.PrivateKey) error {
	used := make([]bool, len(keys))
	for i := range k.configs {
		c := &k.configs[i]
		kem, err := hpke.NewKEM(c.kem)
		if err != nil {
			return fmt.Errorf("ECH: configuration %d asks for KEM %#04x: %w", c.id, c.kem, err)
		}
		for n, key := range keys {
			private, err := kem.NewPrivateKey(key.Bytes())
			if err != nil || !bytes.Equal(private.PublicKey().Bytes(), c.publicKey) {
				continue
			}
			c.key, c.keyBytes, used[n] = private, key.Bytes(), true
		}
		if c.key == nil {
			return fmt.Errorf("ECH: no private key fits configuration %d; put the key that it was made with into the same file", c.id)
		}
	}
	if n := slices.Index(used, false); n >= 0 {
		return fmt.Errorf("ECH: private key %d fits no configuration", n+1)
	}
	return nil
}

// TLS gives the keys in the form of crypto/tls. All are sent to clients that used
// an outdated one.
func (k *ECHKeys) TLS() []tls.EncryptedClientHelloKey {
	if k == nil {
		return nil
	}
	var list []tls.EncryptedClientHelloKey
	for _, c := range k.configs {
		list = append(list, tls.EncryptedClientHelloKey{Config: c.raw, PrivateKey: c.keyBytes, SendAsRetry: true})
	}
	return list
}

// Open gives the inner hello of outer. Both results are nil where there is none
// for us: no extension, one that is GREASE or of a configuration not ours, or one
// that does not decrypt; the handshake then goes on with the outer hello, and
// crypto/tls sends the client our configurations.
//
// Only configurations of the id that the client names are tried, where crypto/tls
// tries all: browsers send GREASE on every connection, and each try is a key
// exchange.
func (k *ECHKeys) Open(outer *wire.Hello) (inner *wire.Hello, err error) {
	if k == nil || len(k.configs) == 0 || outer.ECH == nil {
		return nil, nil
	}
	ext, ok := parseECHExtension(outer.ECH)
	if !ok {
		return nil, flow.Fail(flow.HelloMalformed, "ClientHello: encrypted_client_hello cannot be read")
	}
	if ext.typ != echOuter {
		return nil, nil
	}
	for i := range k.configs {
		if k.configs[i].id != ext.config {
			continue
		}
		encoded, ok := k.configs[i].decrypt(outer, ext)
		if !ok {
			continue
		}
		inner, err := decodeInner(outer, encoded)
		if err != nil {
			return nil, flow.Fail(flow.HelloMalformed, "encrypted ClientHello: %w", err)
		}
		return inner, nil
	}
	return nil, nil
}

func (c *echConfig) decrypt(outer *wire.Hello, ext echExtension) (encoded []byte, ok bool) {
	kdf, err := hpke.NewKDF(ext.kdf)
	if err != nil {
		return nil, false
	}
	aead, err := hpke.NewAEAD(ext.aead)
	if err != nil {
		return nil, false
	}
	r, err := hpke.NewRecipient(ext.enc, c.key, kdf, aead, append([]byte("tls ech\x00"), c.raw...))
	if err != nil {
		return nil, false
	}
	// The first occurrence, as in crypto/tls: for an honest client it is the only one,
	// and for any other we must not come to another result.
	aad := bytes.Replace(outer.Raw[4:], ext.payload, make([]byte, len(ext.payload)), 1)
	encoded, err = r.Open(aad, ext.payload)
	return encoded, err == nil
}

// echExtension is ECHClientHello of RFC 9849, section 5.
type echExtension struct {
	typ          uint8
	kdf, aead    uint16
	config       uint8
	enc, payload []byte
}

func parseECHExtension(body []byte) (e echExtension, ok bool) {
	s := cryptobyte.String(body)
	if !s.ReadUint8(&e.typ) {
		return e, false
	}
	switch e.typ {
	case echInner:
		return e, s.Empty()
	case echOuter:
	default:
		return e, false
	}
	var enc, payload cryptobyte.String
	if !s.ReadUint16(&e.kdf) || !s.ReadUint16(&e.aead) || !s.ReadUint8(&e.config) ||
		!s.ReadUint16LengthPrefixed(&enc) || !s.ReadUint16LengthPrefixed(&payload) {
		return e, false
	}
	e.enc, e.payload = enc, payload
	return e, true
}

// NewECH makes an X25519 key and its configuration, whose outer hellos name
// publicName: as PEM for LoadECH, and as the ECHConfigList for clients.
func NewECH(publicName string) (text, configList []byte, err error) {
	if publicName == "" || len(publicName) > 255 {
		return nil, nil, fmt.Errorf("ECH: the public name %q is not of 1 to 255 bytes", publicName)
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	var id [1]byte
	rand.Read(id[:])
	configList, err = marshalECHConfigs(id[0], kemX25519, key.PublicKey().Bytes(), publicName)
	if err != nil {
		return nil, nil, err
	}
	text = pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemECHConfig, Bytes: configList})...)
	return text, configList, nil
}

var errECHList = errors.New("ECH: the ECHConfigList cannot be read")
