package worker

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	slotsMin = 100
	// slotsMax leaves 10,000 busy subscribers below the 80 % at which runs make room.
	slotsMax = 20_000
	// slotBytes is about what one Deliver and its cached workflow need with a
	// page of events, a connection and its buffers.
	slotBytes = 256 << 10
)

// SlotsDefault returns how many Delivers this machine has room for: half of its
// memory (or of the process's own limit, where that is less) for them, at least
// 100 and at most 20,000.
func SlotsDefault() int {
	return slotsFor(memoryLimit("/sys/fs/cgroup/memory.max", "/proc/meminfo"))
}

func slotsFor(memoryBytes int64) int {
	return int(min(max(memoryBytes/2/slotBytes, slotsMin), slotsMax))
}

// memoryLimit returns the least of Go's memory limit, the control group's and
// the machine's memory, in bytes. What cannot be read, as on systems without
// these files, does not limit.
func memoryLimit(cgroupFile, meminfoFile string) int64 {
	limit := debug.SetMemoryLimit(-1)
	if text, err := os.ReadFile(cgroupFile); err == nil {
		limit = min(limit, parseBytes(strings.TrimSpace(string(text)), 1))
	}
	if text, err := os.ReadFile(meminfoFile); err == nil {
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
				limit = min(limit, parseBytes(fields[1], 1<<10))
			}
		}
	}
	return limit
}

// parseBytes reads a number of units; anything else, such as max, is no limit.
func parseBytes(s string, unit int64) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > math.MaxInt64/unit {
		return math.MaxInt64
	}
	return n * unit
}
