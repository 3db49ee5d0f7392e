package testkit

import (
	"testing"

	"postroad/internal/streams"
)

// Lines returns a real stream of changes: see streams.Lines.
func Lines(t testing.TB, name string) [][]byte {
	t.Helper()
	lines, err := streams.Lines(name)
	if err != nil {
		t.Fatalf("read test data: %v", err)
	}
	return lines
}
