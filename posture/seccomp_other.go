//go:build !amd64 && !arm64

package posture

// archCalls is empty: nobody has tried.
const archCalls = ""
