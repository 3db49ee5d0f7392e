//go:build !linux

package postgres

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// processTable maps the machine's process ids to their command lines, zombies
// left out.
func processTable() (map[int]string, error) {
	output, err := exec.Command("ps", "-axww", "-o", "pid=,stat=,command=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	table := make(map[int]string)
	for line := range strings.Lines(string(output)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || strings.HasPrefix(fields[1], "Z") {
			continue
		}
		pid, err := strconv.Atoi(fields[0])
		if err != nil {
			continue
		}
		_, command, _ := strings.Cut(line, fields[1])
		table[pid] = strings.TrimSpace(command)
	}
	return table, nil
}
