//go:build !slim

package embedded

import (
	"os"
	"sync"
)

// logBytesMax is how long a log grows: a longer one is kept as <name>.1 at the next start.
const logBytesMax = 16 << 20

// logFile swallows what is written after Close: some of Temporal's goroutines
// outlive its server for a moment and report that it is gone.
type logFile struct {
	mu   sync.Mutex
	file *os.File // nil once closed
}

func openLogFile(path string) (*logFile, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logBytesMax {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return &logFile{file: file}, nil
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return len(p), nil
	}
	return l.file.Write(p)
}

// Sync does nothing: a log need not survive the machine.
func (l *logFile) Sync() error { return nil }

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	return file.Close()
}
