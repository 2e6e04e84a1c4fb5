package build

import (
	"path/filepath"

	"sallyport/config"
	"sallyport/credential"
)

// Paths are what a program has to do with in the file system, besides what it
// inherits: for who watches it, and who confines it.
type Paths struct {
	Reads   []string // files, folders and patterns; a change of one is a reason to read all again
	Polls   []string // files that it looks at by itself
	Appends []string // files that it makes where they are not there
	Keeps   []string // folders of its own
	Listens []string // unix sockets that it makes and removes
}

// PathsOf gives those of a file.
func PathsOf(f *config.File, env func(string) string) Paths {
	var all Paths
	for _, p := range f.Paths() {
		switch p.Use {
		case config.Polls:
			all.Polls = append(all.Polls, p.Path)
		case config.Appends:
			all.Appends = append(all.Appends, p.Path)
		case config.Keeps:
			all.Keeps = append(all.Keeps, p.Path)
		case config.Listens:
			if p.Path[0] != '@' {
				all.Listens = append(all.Listens, p.Path)
			}
		default:
			if file := credential.File(p.Path, env); file != "" {
				all.Reads = append(all.Reads, file)
			}
			switch p.Key {
			case "cert":
				all.Reads = append(all.Reads, besides(p.Path)...)
			case "ct_log_list":
				all.Reads = append(all.Reads, signatureOf(p.Path))
			}
		}
	}
	return all
}

// besides are the files that belong to the certificates at location: of a folder
// its own, of a file the keys and the SCTs that may lie beside it.
func besides(location string) []string {
	if credential.File(location, nil) != location {
		return nil
	}
	list := append(credential.Beside(location), credential.SCTsBeside(location))
	for _, ext := range append([]string{credential.SCTExtension}, credential.Extensions...) {
		list = append(list, filepath.Join(location, "*"+ext))
	}
	return list
}
