package worker

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	for memory, want := range map[int64]int{0: 100, 64 << 20: 128, 1 << 30: 2048, math.MaxInt64: 20_000} {
		if got := slotsFor(memory); got != want {
			t.Errorf("slots in %d bytes: %d, want %d", memory, got, want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const meminfo = "MemFree: 12 kB\nMemTotal:       4096 kB\n"
	for name, tt := range map[string]struct {
		cgroup, meminfo string
		want            int64
	}{
		"the machine's":                  {file("max\n"), file(meminfo), 4 << 20},
		"the control group's":            {file("1048576\n"), file(meminfo), 1 << 20},
		"neither to be had":              {"/nowhere/a", "/nowhere/b", math.MaxInt64},
		"more than a number can say":     {file("99999999999999999999"), file("MemTotal: 9223372036854775807 kB"), math.MaxInt64},
		"something that is not a number": {file(""), file("MemTotal:\n"), math.MaxInt64},
	} {
		// Go's own limit is not set in tests.
		if got := memoryLimit(tt.cgroup, tt.meminfo); got != tt.want {
			t.Errorf("%s: %d bytes, want %d", name, got, tt.want)
		}
	}
}
