//go:build !cgo

package posture

// linked is empty: a static program has all of itself.
var linked []string

const mapsCode = false
