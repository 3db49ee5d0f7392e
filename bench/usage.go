package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ownCPU is how much CPU time this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// clockTick is the unit of times in /proc: USER_HZ, 100 on every Linux that Go
// runs on.
const clockTick = 10 * time.Millisecond

// usage is what a group of processes has used so far, and holds now.
type usage struct {
	cpu time.Duration // children that ended included
	// memory is the resident memory: what each has for itself, and once what they
	// share.
	memory int64
}

// children are the processes that one has started. The kernel's list of them is
// read: to look at every process there is takes as long as some deliveries do,
// which would wait for it.
func children(pid int) (found []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}

// usageOf adds up processes; ok is false where the system has no /proc to ask,
// or none of them is there.
func usageOf(pids ...int) (u usage, ok bool) {
	var shared, file int64
	for _, pid := range pids {
		fields, there := readStat(pid)
		if !there {
			continue // it ended meanwhile
		}
		ok = true
		for _, ticks := range fields[11:15] { // utime, stime, cutime, cstime: fields 14 to 17 of proc(5)
			n, _ := strconv.ParseInt(ticks, 10, 64)
			u.cpu += time.Duration(n) * clockTick
		}
		status := readStatus(pid)
		u.memory += status["RssAnon"]
		shared, file = max(shared, status["RssShmem"]), max(file, status["RssFile"])
	}
	u.memory += shared + file
	return u, ok
}

// readStat reads the fields of /proc/<pid>/stat from the third on.
func readStat(pid int) ([]string, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, false
	}
	// The program's name stands in parentheses and may hold anything.
	end := strings.LastIndex(string(text), ") ")
	if end < 0 {
		return nil, false
	}
	fields := strings.Fields(string(text)[end+2:])
	return fields, len(fields) >= 15
}

// readStatus reads the sizes of /proc/<pid>/status, in bytes.
func readStatus(pid int) map[string]int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return nil
	}
	sizes := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if kilobytes, found := strings.CutSuffix(strings.TrimSpace(value), " kB"); found {
			n, _ := strconv.ParseInt(kilobytes, 10, 64)
			sizes[name] = n << 10
		}
	}
	return sizes
}
