package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"postroad/internal/dirlock"
)

// postgresDir is the private PostgreSQL's place in the data directory.
const postgresDir = "postgres"

// dataDir is a data directory that we hold.
type dataDir struct {
	path string // absolute
	lock *dirlock.Lock
}

func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	lock, err := dirlock.Acquire(path)
	if err != nil {
		return nil, fmt.Errorf("open data directory: %w", err)
	}
	return &dataDir{path: path, lock: lock}, nil
}

func (d *dataDir) close() error { return d.lock.Release() }

func (d *dataDir) postgres() string { return filepath.Join(d.path, postgresDir) }

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// clusterID reads the Temporal cluster's id, made at the first start. It is kept
// apart from Temporal's own file, which is given up for a new one at times.
func (d *dataDir) clusterID() (string, error) {
	text, err := os.ReadFile(d.file("cluster-id"))
	if id := strings.TrimSpace(string(text)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read cluster id: %w", err)
	}
	id := newUUID()
	return id, d.saveClusterID(id)
}

// saveClusterID replaces the file in one step: half an id would be another one.
func (d *dataDir) saveClusterID(id string) error {
	unfinished := d.file("cluster-id.new")
	if err := os.WriteFile(unfinished, []byte(id+"\n"), 0o644); err != nil {
		return fmt.Errorf("save cluster id: %w", err)
	}
	if err := os.Rename(unfinished, d.file("cluster-id")); err != nil {
		return fmt.Errorf("save cluster id: %w", err)
	}
	return nil
}

// newUUID makes a random UUID (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
