// Package config turns the file and the command line into one typed tree with
// positions: inherited, defaulted and checked as far as that is possible
// without opening another file.
//
//	file, err := config.Load("/etc/sallyport/sallyport.yaml", config.Options{Env: os.Getenv})
//
// Both ways lead through the same steps. YAML, or flags, become nodes that
// know where they stand; short forms become maps; every value is checked where
// it was written; defaults, listener and route are merged; and one decoder
// fills the structs of types.go, whose tags are also what flags, help and the
// JSON Schema are made from. A value in the tree is right; what is wrong is an
// [Errors] with file, line, column and a hint.
//
// It opens no certificate and no socket, resolves no name, and never expands
// ${}: what a file says stands in it.
package config
