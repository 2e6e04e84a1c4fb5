package main

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/mlkem"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// operation is a piece of cryptography that no implementation of TLS can leave out.
type operation string

const (
	sign        operation = "ECDSA P-256 signature"
	verify      operation = "ECDSA P-256 verification"
	signRSA     operation = "RSA-2048 PSS signature"
	keygen      operation = "X25519 key generation"
	agree       operation = "X25519 agreement"
	encapsulate operation = "ML-KEM-768 encapsulation"
	sealRecord  operation = "AES-128-GCM of 16 KiB"
	openRecord  operation = "AES-128-GCM of 16 KiB, opened"
	sealEcho    operation = "AES-128-GCM of 1 KiB"
	openEcho    operation = "AES-128-GCM of 1 KiB, opened"
)

// bound is the least that one unit of a row can cost.
type bound struct {
	operations []operation
	times      float64       // how often they are done for one unit
	in         time.Duration // the row's unit of time
}

// once is for rows in microseconds a connection or a round.
func once(list ...operation) bound { return bound{list, 1, time.Microsecond} }

// perGiB is for rows in seconds a GiB, in records as large as TLS has them.
func perGiB(list ...operation) bound { return bound{list, 1 << 30 >> 14, time.Second} }

// costs are CPU times of operations on this machine, each measured when a row
// first asks.
type costs map[operation]time.Duration

func (c costs) of(b bound) (float64, error) {
	var total time.Duration
	for _, o := range b.operations {
		if _, ok := c[o]; !ok {
			took, err := o.measure()
			if err != nil {
				return 0, fmt.Errorf("%s: %w", o, err)
			}
			c[o] = took
		}
		total += c[o]
	}
	return float64(total) * b.times / float64(b.in), nil
}

const threadTime = "thread-ns/op"

// measure asks Go's own benchmarks, by the clock of the thread: that of the wall
// counts what other processes do meanwhile.
func (o operation) measure() (time.Duration, error) {
	run, err := o.prepare()
	if err != nil {
		return 0, err
	}
	r := testing.Benchmark(func(b *testing.B) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		start := threadClock()
		for range b.N {
			if err = run(); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(threadClock()-start)/float64(b.N), threadTime)
	})
	return time.Duration(r.Extra[threadTime]), err
}

func threadClock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err) // only for a clock that Linux does not have
	}
	return time.Duration(t.Nano())
}

// prepare makes keys and buffers, and gives what is to be timed.
func (o operation) prepare() (func() error, error) {
	switch o {
	case sign, verify:
		return prepareECDSA(o)
	case signRSA:
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		digest := sha256.Sum256(nil)
		return func() error {
			_, err := key.Sign(rand.Reader, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
			return err
		}, err
	case keygen:
		return func() error {
			key, err := ecdh.X25519().GenerateKey(rand.Reader)
			if err == nil {
				_ = key.PublicKey() // made when it is asked for
			}
			return err
		}, nil
	case agree:
		return prepareECDH()
	case encapsulate:
		key, err := mlkem.GenerateKey768()
		if err != nil {
			return nil, err
		}
		share := key.EncapsulationKey().Bytes()
		return func() error {
			theirs, err := mlkem.NewEncapsulationKey768(share)
			if err == nil {
				theirs.Encapsulate()
			}
			return err
		}, nil
	case sealRecord, openRecord:
		return prepareGCM(16<<10, o == openRecord)
	}
	return prepareGCM(1<<10, o == openEcho)
}

func prepareECDSA(o operation) (func() error, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(nil)
	if o == sign {
		return func() error {
			_, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
			return err
		}, nil
	}
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	return func() error {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			return fmt.Errorf("a good signature does not verify")
		}
		return nil
	}, err
}

func prepareECDH() (func() error, error) {
	ours, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	share := theirs.PublicKey().Bytes()
	return func() error {
		public, err := ecdh.X25519().NewPublicKey(share)
		if err == nil {
			_, err = ours.ECDH(public)
		}
		return err
	}, nil
}

func prepareGCM(size int, open bool) (func() error, error) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	var nonce [12]byte
	var head [5]byte // a record's, which TLS 1.3 authenticates with it
	plain := make([]byte, size)
	record := aead.Seal(nil, nonce[:], plain, head[:])
	if open {
		return func() error {
			_, err := aead.Open(plain[:0], nonce[:], record, head[:])
			return err
		}, nil
	}
	return func() error { aead.Seal(record[:0], nonce[:], plain, head[:]); return nil }, nil
}
