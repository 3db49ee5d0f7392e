package streams

import (
	"encoding/json"
	"testing"
)

func TestLines(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"sdk-go": 12_525, "reso-transport": 298} {
		lines, err := Lines(name)
		if err != nil || len(lines) != want {
			t.Fatalf("%s: %d lines, %v; want %d", name, len(lines), err, want)
		}
		for i, line := range lines {
			if !json.Valid(line) {
				t.Fatalf("%s: line %d is no JSON: %s", name, i+1, line)
			}
		}
	}
	if _, err := Lines("another"); err == nil {
		t.Error("a stream that does not exist was read")
	}
}
