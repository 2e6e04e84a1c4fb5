// Package ca makes certificates at run time, for the demo and for the tests.
// Nothing it makes is ever shipped, and nothing of it belongs near a real key.
//
//	root, err := ca.New(now)
//	inter, err := root.Intermediate()
//	leaf, err := inter.Leaf([]string{"a.test", "127.0.0.1"}, ca.RSA(2048))
//	cert, key, err := leaf.Write(dir, "site")
//
// In a test, [Test] gives the same without the errors. Each [Option] is one way
// for a certificate to be different or wrong; [Template], [TBS] and [Tamper] are
// for what has no knob of its own. Certificates that crypto/x509 refuses to
// sign (SHA-1, MD5, RSA-512, keys it does not know) are signed by hand here.
package ca
