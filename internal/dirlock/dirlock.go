// Package dirlock lets one process at a time own a directory. The kernel drops
// the lock when its process dies in whatever way, so no stale lock can be left
// behind. Unix only, like all that runs a private PostgreSQL.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// fileName is the lock's file in the directory. It stays there after a release:
// removing it would let two processes lock two different files of one name.
const fileName = "lock"

// HeldError says that another process owns the directory.
type HeldError struct {
	Dir string // the directory asked for
	PID int    // the process that holds it; 0 if it did not tell
}

// Error names the directory and its holder.
func (e *HeldError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("directory %s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("directory %s is in use by process %d", e.Dir, e.PID)
}

// Lock is a held lock.
type Lock struct{ file *os.File }

// Acquire takes the lock of dir, which must exist, or returns a *HeldError at once.
func Acquire(dir string) (*Lock, error) {
	path := filepath.Join(dir, fileName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &HeldError{Dir: dir, PID: holder(path)}
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := writePID(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("write lock file %s: %w", path, err)
	}
	return &Lock{file: file}, nil
}

// Release gives the directory up. A second call does nothing.
func (l *Lock) Release() error {
	if l == nil || l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	// A child that is just being started has the file open until it execs, and
	// with it the lock: closing alone would leave it locked for that moment.
	return errors.Join(file.Truncate(0), syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func holder(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}
