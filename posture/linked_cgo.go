//go:build cgo

package posture

// linked is where the C library of a build with cgo, such as one with the race
// detector, looks for parts of itself, which it maps to run them.
var linked = []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"}

const mapsCode = true
