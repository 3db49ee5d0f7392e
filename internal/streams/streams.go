// Package streams holds real streams of changes, for tests and for the
// benchmark.
package streams

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io"
)

//go:embed *.ndjson.gz
var files embed.FS

// Lines returns a real stream of changes, one JSON object of a publishing
// request per line: "reso-transport" (298 lines, the history of RESO's
// transport standards) or "sdk-go" (12,525 lines, that of Temporal's Go SDK).
// An error means that there is no stream of that name.
func Lines(name string) ([][]byte, error) {
	file, err := files.Open(name + ".ndjson.gz")
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	defer func() { _ = file.Close() }() // it lies in memory
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	text, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", name, err)
	}
	return bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n")), nil
}
