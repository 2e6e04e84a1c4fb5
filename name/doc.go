// Package name holds the patterns by which the file speaks of DNS names and
// URIs: * is exactly one label or path segment, ** one or more, and never a
// substring.
package name
