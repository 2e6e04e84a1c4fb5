// Package credential is who we are: certificates with their keys, and the choice
// among them for one handshake.
//
//	store, warnings, err := credential.Load(credential.Options{Certs: []string{"/etc/sallyport/certs"}, Now: now, Env: os.Getenv})
//	c, err := store.Credential(ctx, &credential.Request{ServerName: "a.example", Schemes: offered})
//
// A certificate's file is PEM, leaf first. Its key is found by public key, never
// by order: in the same file, in a file of Options.Keys, or beside it:
//
//	site.pem, site.crt    site.key, site.pem, site-key.pem, site.key.pem
//	fullchain.pem         privkey.pem (certbot)
//	cert.pem              privkey.pem, key.pem
//	tls.crt               tls.key (Kubernetes)
//
// Of a folder every *.pem, *.crt, *.cer and *.key is read, in the order of their
// names; hidden files and sub-folders are not, and links to files are followed,
// so that a Secret volume works and one folder of certbot's does. A CA's
// certificate lying there is not served.
//
// Nothing here opens a socket, or reads a clock: what has expired is judged by
// the time at which it was loaded.
package credential
