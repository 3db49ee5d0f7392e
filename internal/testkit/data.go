package testkit

import (
	"bytes"
	"embed"
	"testing"
)

//go:embed testdata/*.ndjson
var data embed.FS

// Lines returns a real stream of changes, one JSON object of a publishing
// request per line: "reso-transport" (298 lines, the history of RESO's
// transport standards) or "sdk-go" (12,525 lines, that of Temporal's Go SDK).
func Lines(t testing.TB, name string) [][]byte {
	t.Helper()
	b, err := data.ReadFile("testdata/" + name + ".ndjson")
	if err != nil {
		t.Fatalf("read test data: %v", err)
	}
	return bytes.Split(bytes.TrimRight(b, "\n"), []byte("\n"))
}
