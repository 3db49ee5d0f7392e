package postgres

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// processTable maps the machine's process ids to their command lines. Zombies
// and kernel threads have none and are left out.
func processTable() (map[int]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	table := make(map[int]string, len(entries))
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err != nil || len(text) == 0 {
			continue // ended meanwhile
		}
		table[pid] = strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
	}
	return table, nil
}
