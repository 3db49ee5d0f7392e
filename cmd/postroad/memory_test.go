package main

import "testing"

// TestMemory is one process: it works, rests, works again and rests.
func TestMemory(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	m := memory{}
	for i, c := range []struct {
		allocated, resident uint64 // MiB; allocated since the last look
		give                bool
	}{
		{100, 200, false}, // at work
		{10, 200, true},   // quiet
		{10, 100, false},  // there is little to give: 80 were left
		{10, 125, true},
		{100, 900, false},
		{100, 900, false},
		{64, 900, true},
	} {
		give := m.look(m.allocated+c.allocated*mib, c.resident*mib)
		if give != c.give {
			t.Errorf("look %d: %t", i, give)
		}
		if give {
			m.left = 80 * mib
		}
	}
}
