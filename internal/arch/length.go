package arch

import (
	"bytes"
	"fmt"
	"io/fs"
	"regexp"
)

// FileLinesMax is the length in lines that a Go file written by people stays
// under: longer ones are two files.
const FileLinesMax = 500

// generated is the mark of generated files, https://go.dev/s/generatedcode.
var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

// LongFiles returns the Go files of the module that are not generated and have
// FileLinesMax lines or more, each with its number of lines.
func LongFiles(fsys fs.FS) ([]string, error) {
	var long []string
	err := goFiles(fsys, func(file string) error {
		text, err := fs.ReadFile(fsys, file)
		if err != nil {
			return err
		}
		if n := bytes.Count(text, []byte("\n")); n >= FileLinesMax && !generated.Match(text) {
			long = append(long, fmt.Sprintf("%s: %d lines", file, n))
		}
		return nil
	})
	return long, err
}
