package testnet

import (
	"os"
	"regexp"
	"strings"
)

var aPath = regexp.MustCompile(`/[^\s"',:;(){}\[\]]+`)

// mostFiles are enough to know whether a program tells its keys.
const mostFiles = 50

// keyLines are the lines of the private keys in the files that args name, or that a
// file named by these names. No log may have one of them (P-05).
func keyLines(args []string) (lines []string) {
	paths := aPath.FindAllString(strings.Join(args, "\n"), mostFiles)
	for i := 0; i < len(paths) && i < mostFiles; i++ {
		info, err := os.Stat(paths[i])
		if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
			continue
		}
		data, err := os.ReadFile(paths[i])
		if err != nil {
			continue
		}
		text := string(data)
		if strings.Contains(text, "listeners:") {
			paths = append(paths, aPath.FindAllString(text, mostFiles)...)
		}
		inside := false
		for line := range strings.Lines(text) {
			switch line = strings.TrimSpace(line); {
			case strings.HasPrefix(line, "-----"):
				inside = strings.HasPrefix(line, "-----BEGIN") && strings.Contains(line, "PRIVATE KEY")
			case inside && len(line) > 16:
				lines = append(lines, line)
			}
		}
	}
	return lines
}
