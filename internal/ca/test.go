package ca

import (
	"crypto/x509"
	"time"
)

// T is what [Test] needs of a testing.TB; the demo shall not link package testing.
type T interface {
	Helper()
	TempDir() string
	Fatal(args ...any)
}

// Tester is a CA in a test: what fails, fails the test.
type Tester struct {
	*CA
	t T
}

// Test makes a root at the time of the test's clock, which is synctest's where
// the test runs in a bubble of it. [TestAt] takes the clock as an argument.
func Test(t T, opts ...Option) *Tester {
	t.Helper()
	return TestAt(t, time.Now(), opts...)
}

// TestAt makes a root as of now.
func TestAt(t T, now time.Time, opts ...Option) *Tester {
	t.Helper()
	c, err := New(now, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return &Tester{c, t}
}

// Intermediate makes a CA below c.
func (c *Tester) Intermediate(opts ...Option) *Tester {
	c.t.Helper()
	sub, err := c.CA.Intermediate(opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	return &Tester{sub, c.t}
}

// Leaf makes a certificate for names.
func (c *Tester) Leaf(names []string, opts ...Option) *Leaf {
	c.t.Helper()
	l, err := c.CA.Leaf(names, opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

// SelfSigned makes a leaf with c's clock that no CA signed.
func (c *Tester) SelfSigned(names []string, opts ...Option) *Leaf {
	c.t.Helper()
	l, err := SelfSigned(c.now, names, opts...)
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

// Chain is l's chain, parsed.
func (c *Tester) Chain(l *Leaf) []*x509.Certificate {
	c.t.Helper()
	certs, err := l.Certs()
	if err != nil {
		c.t.Fatal(err)
	}
	return certs
}

// Files writes l into a folder of the test's own.
func (c *Tester) Files(l *Leaf) (cert, key string) {
	c.t.Helper()
	cert, key, err := l.Write(c.t.TempDir(), "leaf")
	if err != nil {
		c.t.Fatal(err)
	}
	return cert, key
}

// File writes c's own certificate into a folder of the test's own.
func (c *Tester) File() string {
	c.t.Helper()
	file, err := c.CA.Write(c.t.TempDir(), "ca")
	if err != nil {
		c.t.Fatal(err)
	}
	return file
}
