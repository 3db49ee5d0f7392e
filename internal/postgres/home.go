package postgres

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postroad/internal/dirlock"
)

// sharedRoot holds the clusters whose own directory PostgreSQL's account cannot reach.
const sharedRoot = "/var/lib/postroad"

// home is the directory of a cluster: data/, password, port, postgres.log and
// our lock.
type home struct {
	dir      string // absolute, without symbolic links
	account  *account
	password string
	lock     *dirlock.Lock
}

// openHome finds or makes the directory for a cluster asked for at dir and takes
// its lock.
func openHome(ctx context.Context, dir string, logger *slog.Logger) (*home, error) {
	dir, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	acct, err := accountFor(filepath.Join(dir, "data"))
	if err != nil {
		return nil, err
	}
	h := &home{dir: dir, account: acct}
	if acct != nil {
		if h.dir, err = reachableDir(ctx, dir, acct, logger); err != nil {
			return nil, err
		}
	}
	if h.lock, err = dirlock.Acquire(h.dir); err != nil {
		return nil, err
	}
	if h.password, err = h.readPassword(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// makeDir makes dir and returns its one true name, by which an orphan's command
// line is recognised later.
func makeDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// reachableDir is dir if acct can work there, else a directory under sharedRoot
// that dir's path file names.
func reachableDir(ctx context.Context, dir string, acct *account, logger *slog.Logger) (string, error) {
	pathFile := dir + ".path"
	named, err := os.ReadFile(pathFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	away := strings.TrimSpace(string(named))
	if away == "" {
		if err := acct.own(dir); err != nil {
			return "", err
		}
		if acct.reaches(ctx, dir) {
			return dir, nil
		}
		away = awayDir(dir)
		if err := setAside(ctx, away, acct, logger); err != nil {
			return "", err
		}
		// Named before it is made: a cluster that no file names was given up with its data directory.
		if err := os.WriteFile(pathFile, []byte(away+"\n"), 0o644); err != nil {
			return "", err
		}
	}
	// The account must pass through the root, so its mode does not follow our umask.
	if err := errors.Join(os.MkdirAll(sharedRoot, 0o755), os.Chmod(sharedRoot, 0o755), os.MkdirAll(away, 0o700)); err != nil {
		return "", err
	}
	if err := acct.own(away); err != nil {
		return "", err
	}
	if !acct.reaches(ctx, away) {
		return "", fmt.Errorf("user %s can work neither in %s nor in %s", acct.name, dir, away)
	}
	return away, nil
}

func awayDir(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(sharedRoot, hex.EncodeToString(sum[:8]))
}

// setAside renames a cluster whose data directory was deleted: a new data
// directory of the same name must start empty, and we delete no database unasked.
func setAside(ctx context.Context, away string, acct *account, logger *slog.Logger) error {
	if _, err := os.Stat(away); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	lock, err := dirlock.Acquire(away)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Release() }() // the process's end releases it too
	h := &home{dir: away, account: acct}
	if err := h.stopOrphan(ctx, logger); err != nil {
		return err
	}
	aside := fmt.Sprintf("%s.%d", away, time.Now().Unix())
	if err := os.Rename(away, aside); err != nil {
		return err
	}
	logger.Warn("set aside the database of a data directory that was deleted", "from", away, "to", aside)
	return nil
}

func (h *home) dataDir() string { return filepath.Join(h.dir, "data") }

func (h *home) logPath() string { return filepath.Join(h.dir, "postgres.log") }

// clusterName stands in the title of each of the server's processes.
func (h *home) clusterName() string {
	sum := sha256.Sum256([]byte(h.dir))
	return "postroad-" + hex.EncodeToString(sum[:8])
}

// readPassword returns the superuser's password, made at the first start.
func (h *home) readPassword() (string, error) {
	path := filepath.Join(h.dir, "password")
	text, err := os.ReadFile(path)
	if err == nil && len(text) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read password: %w", err)
	}
	if major, err := h.major(); err != nil || major != 0 {
		return "", errors.Join(err, fmt.Errorf("the cluster has data, but its password is not in %s", path))
	}
	random := make([]byte, 24)
	rand.Read(random)
	password := hex.EncodeToString(random)
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write password: %w", err)
	}
	return password, h.account.own(path)
}

// major is the major version the data was made by, 0 without data.
func (h *home) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(h.dataDir(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read PG_VERSION: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read PG_VERSION: %w", err)
	}
	return major, nil
}

// initialise makes the data directory. It gets its name only when complete, so
// an interrupted initdb leaves nothing that a later start takes for a cluster.
func (h *home) initialise(ctx context.Context, p programs, noSync bool) error {
	unfinished := h.dataDir() + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	args := []string{
		"-D", unfinished, "-U", superuser, "--pwfile", filepath.Join(h.dir, "password"),
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
	}
	if noSync {
		args = append(args, "--no-sync")
	}
	cmd := h.account.command(ctx, h.dir, p.initdb(), args...)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w: %s", p.initdb(), err, strings.TrimSpace(string(output)))
	}
	return os.Rename(unfinished, h.dataDir())
}

// lastPort is the port of the previous start, 0 if there was none.
func (h *home) lastPort() int {
	text, err := os.ReadFile(filepath.Join(h.dir, "port"))
	if err != nil {
		return 0
	}
	port, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return port
}

func (h *home) savePort(port int) error {
	return os.WriteFile(filepath.Join(h.dir, "port"), []byte(strconv.Itoa(port)+"\n"), 0o644)
}

func (h *home) close() error { return h.lock.Release() }

func removeHome(dir string) error {
	_, dirErr := os.Stat(dir)
	_, pathErr := os.Stat(dir + ".path")
	if errors.Is(dirErr, fs.ErrNotExist) && errors.Is(pathErr, fs.ErrNotExist) {
		return nil
	}
	dir, err := makeDir(dir)
	if err != nil {
		return err
	}
	gone := []string{dir}
	if named, err := os.ReadFile(dir + ".path"); err == nil {
		away := strings.TrimSpace(string(named))
		// The file is only text: nothing but a cluster of ours is deleted on its word.
		if filepath.Dir(away) == sharedRoot {
			gone = append(gone, away)
		}
	}
	for _, path := range gone {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lock, err := dirlock.Acquire(path)
		if err != nil {
			return err
		}
		if err := errors.Join(os.RemoveAll(path), lock.Release()); err != nil {
			return err
		}
	}
	if err := os.Remove(dir + ".path"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
