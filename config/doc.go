// Package config turns the file and the command line into one typed tree with
// positions: inherited, defaulted and checked as far as that is possible
// without opening another file.
package config
