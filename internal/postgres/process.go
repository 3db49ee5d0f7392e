package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"postroad/internal/ports"
)

const (
	pollInterval     = 10 * time.Millisecond
	connectTimeout   = 5 * time.Second
	firstLaunchesMax = 5
	immediateMax     = 5 * time.Second // how long a server may take to die without a checkpoint
	remainsMax       = 10 * time.Second
	logBytesMax      = 16 << 20 // a longer log is kept as postgres.log.1 at the next launch
	logTailBytes     = 2048
)

// process is one run of the server.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // how it ended; valid once exited is closed
}

// errExited says that the server ended before it took connections.
var errExited = errors.New("PostgreSQL ended at once")

// firstLaunch picks the port and starts the server, again with another port where
// the one picked was taken meanwhile.
func (c *Cluster) firstLaunch(ctx context.Context) error {
	for try := 1; ; try++ {
		if err := c.pickPort(); err != nil {
			return err
		}
		err := c.launch(ctx)
		if err == nil {
			return c.home.savePort(c.port)
		}
		if !errors.Is(err, errExited) || try == firstLaunchesMax || ctx.Err() != nil {
			return err
		}
		taken := ports.Check(net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))) != nil
		if c.cfg.Port != 0 || !taken {
			return err
		}
	}
}

func (c *Cluster) pickPort() error {
	if c.cfg.Port != 0 {
		c.port = c.cfg.Port
		return nil
	}
	if last := c.home.lastPort(); last != 0 && ports.Check(net.JoinHostPort("127.0.0.1", strconv.Itoa(last))) == nil {
		c.port = last
		return nil
	}
	free, err := ports.Free(1)
	if err != nil {
		return err
	}
	c.port = free[0]
	return nil
}

// launch starts the server and waits until it takes connections.
func (c *Cluster) launch(ctx context.Context) error {
	// Processes of a killed server hold its shared memory for a moment, and the next server refuses to start beside them.
	if err := c.home.clearRemains(ctx); err != nil {
		return err
	}
	proc, logStart, err := c.spawn() //nolint:contextcheck // the server outlives the context it was started under
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	c.mu.Lock()
	c.proc = proc
	c.mu.Unlock()
	if err := c.awaitReady(ctx, proc); err != nil {
		proc.kill()
		c.mu.Lock()
		c.proc = nil
		c.mu.Unlock()
		err = errors.Join(err, c.home.clearRemains(context.WithoutCancel(ctx)))
		return fmt.Errorf("start PostgreSQL in %s: %w%s", c.home.dir, err, logTail(c.home.logPath(), logStart))
	}
	return nil
}

func (c *Cluster) spawn() (*process, int64, error) {
	logFile, err := openLog(c.home.logPath())
	if err != nil {
		return nil, 0, err
	}
	defer logFile.Close()
	logStart, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, 0, err
	}
	args := []string{"-D", c.home.dataDir()}
	settings := c.cfg.settings(c.port, c.home.clusterName())
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	// Not bound to any context: the server ends by Stop alone.
	cmd := c.home.account.command(context.Background(), c.home.dir, c.programs.postgres(), args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	proc := &process{cmd: cmd, exited: make(chan struct{})}
	go func() {
		proc.err = cmd.Wait()
		close(proc.exited)
	}()
	return proc, logStart, nil
}

func (c *Cluster) awaitReady(ctx context.Context, proc *process) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		tryCtx, cancel := context.WithTimeout(ctx, connectTimeout)
		conn, err := pgconn.Connect(tryCtx, c.URL("postgres"))
		cancel()
		if err == nil {
			_ = conn.Close(ctx)
			return nil
		}
		select {
		case <-proc.exited:
			return fmt.Errorf("%w: %w", errExited, proc.err)
		case <-c.stopping:
			return errors.New("stopped meanwhile")
		case <-ctx.Done():
			return fmt.Errorf("%w; last answer: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}

// supervise keeps the server running until Stop.
func (c *Cluster) supervise() {
	defer close(c.done)
	for {
		c.mu.Lock()
		proc := c.proc
		c.mu.Unlock()
		select {
		case <-c.stopping:
			c.stopErr = errors.Join(proc.shutdown(c.hurry), c.home.close())
			c.cfg.Logger.Info("PostgreSQL has stopped", "dir", c.home.dir)
			return
		case <-proc.exited:
		}
		c.mu.Lock()
		c.proc = nil
		c.mu.Unlock()
		c.cfg.Logger.Warn("PostgreSQL died and is restarted", "dir", c.home.dir, "error", proc.err)
		if !c.relaunch() {
			c.stopErr = c.home.close()
			return
		}
		c.cfg.Logger.Info("PostgreSQL is running again", "dir", c.home.dir, "port", c.port)
	}
}

// relaunch starts a dead server until it runs; false if Stop came first.
func (c *Cluster) relaunch() bool {
	for delay := c.cfg.RestartDelay; ; delay = min(2*delay, 50*c.cfg.RestartDelay) {
		select {
		case <-c.stopping:
			return false
		default:
		}
		err := c.launch(context.Background())
		if err == nil {
			return true
		}
		c.cfg.Logger.Error("PostgreSQL does not start", "dir", c.home.dir, "error", err, "retry_in", delay)
		select {
		case <-c.stopping:
			return false
		case <-time.After(delay):
		}
	}
}

// shutdown ends the server with a checkpoint, or without one once hurry is closed.
func (p *process) shutdown(hurry <-chan struct{}) error {
	_ = p.cmd.Process.Signal(syscall.SIGINT) // fails only if it is gone already
	select {
	case <-p.exited:
		return nil
	case <-hurry:
	}
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.exited:
	case <-time.After(immediateMax):
		p.kill()
	}
	return errors.New("PostgreSQL did not stop in time and was killed; it will recover at its next start")
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// stopOrphan stops a server that a killed process left running in this home.
func (h *home) stopOrphan(ctx context.Context, logger *slog.Logger) error {
	pids, err := h.find(h.isServer)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		logger.Warn("stopping the PostgreSQL that a killed process left behind", "dir", h.dir, "pid", pid)
		if err := syscall.Kill(pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return h.awaitGone(ctx, h.isServer)
}

// clearRemains ends what is left of a dead server, so that a new one can start.
func (h *home) clearRemains(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, remainsMax)
	defer cancel()
	remains, err := h.find(h.isOurs)
	if err != nil {
		return err
	}
	if err := killAll(remains); err != nil {
		return err
	}
	if err := h.awaitGone(ctx, h.isOurs); err != nil {
		return err
	}
	return h.removeStalePIDFile()
}

// removeStalePIDFile removes the server's own lock file where the process it
// names is no PostgreSQL: process ids are used again, soon so in containers, and
// PostgreSQL would refuse to start because of a stranger.
func (h *home) removeStalePIDFile() error {
	path := filepath.Join(h.dataDir(), "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil //nolint:nilerr // none there, the usual case
	}
	first, _, _ := strings.Cut(string(text), "\n")
	owner, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		return nil //nolint:nilerr // PostgreSQL judges a broken file itself
	}
	table, err := processTable()
	if err != nil {
		return err
	}
	if strings.Contains(table[owner], "postgres") {
		return nil
	}
	return os.Remove(path)
}

// isServer knows a server of this home by its command line.
func (h *home) isServer(command string) bool {
	return strings.Contains(command+" ", " -D "+h.dataDir()+" ")
}

// isMember knows a server's child process by its title.
func (h *home) isMember(command string) bool {
	return strings.HasPrefix(command, "postgres: "+h.clusterName()+": ")
}

// isOurs also knows a child that has not set its title yet.
func (h *home) isOurs(command string) bool { return h.isServer(command) || h.isMember(command) }

func (h *home) find(is func(command string) bool) ([]int, error) {
	table, err := processTable()
	if err != nil {
		return nil, err
	}
	var found []int
	for pid, command := range table {
		if is(command) {
			found = append(found, pid)
		}
	}
	return found, nil
}

func (h *home) awaitGone(ctx context.Context, is func(command string) bool) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		pids, err := h.find(is)
		if err != nil || len(pids) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for processes %v to end: %w", pids, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}

func killAll(pids []int) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d: %w", pid, err)
		}
	}
	return nil
}

func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > logBytesMax {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// logTail is what the server said since offset, for the error that it caused.
func logTail(path string, offset int64) string {
	text, err := os.ReadFile(path)
	if err != nil || int64(len(text)) <= offset {
		return ""
	}
	tail := text[offset:]
	if len(tail) > logTailBytes {
		tail = tail[len(tail)-logTailBytes:]
	}
	return "; " + path + " says: " + strings.TrimSpace(string(tail))
}
