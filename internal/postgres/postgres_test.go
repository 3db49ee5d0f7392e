package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/internal/dirlock"
	"postroad/internal/postgres"
)

// startTimeout is generous: several packages' tests share two cores.
const startTimeout = 90 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs a cluster in dir and removes it after the test.
func start(t *testing.T, dir string) *postgres.Cluster {
	t.Helper()
	t.Cleanup(func() {
		if err := postgres.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	c, err := postgres.Start(ctx, postgres.Config{Dir: dir, NoSync: true, Logger: quiet(), RestartDelay: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Stop(context.Background()) }) // what it returns is the tests' business
	return c
}

// connect retries until the server answers: it may be restarting.
func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) })
			return conn
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func exec(t *testing.T, dsn, sql string) {
	t.Helper()
	if _, err := connect(t, dsn).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func count(t *testing.T, dsn string) (n int) {
	t.Helper()
	if err := connect(t, dsn).QueryRow(t.Context(), "SELECT count(*) FROM kept").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestStart(t *testing.T) {
	t.Parallel()

	t.Run("keeps data, password and port over a restart", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "postgres")
		first := start(t, dir)
		if err := first.CreateDatabase(t.Context(), "postroad"); err != nil {
			t.Fatal(err)
		}
		if err := first.CreateDatabase(t.Context(), "postroad"); err != nil {
			t.Fatalf("second time: %v", err)
		}
		exec(t, first.URL("postroad"), "CREATE TABLE kept AS SELECT 1")
		dsn := first.URL("postroad")
		for range 2 {
			if err := first.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if pid := first.PID(); pid != 0 && processExists(pid) {
			t.Fatalf("process %d runs after Stop", pid)
		}
		second := start(t, dir)
		if got := second.URL("postroad"); got != dsn {
			t.Errorf("URL changed from %s to %s", dsn, got)
		}
		if n := count(t, dsn); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})

	t.Run("refuses a directory in use", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "postgres")
		start(t, dir)
		_, err := postgres.Start(t.Context(), postgres.Config{Dir: dir, Logger: quiet()})
		var held *dirlock.HeldError
		if !errors.As(err, &held) || held.PID != os.Getpid() {
			t.Fatalf("error %v, want one that names process %d", err, os.Getpid())
		}
	})

	t.Run("refuses a wrong password and listens on loopback only", func(t *testing.T) {
		t.Parallel()
		c := start(t, filepath.Join(t.TempDir(), "postgres"))
		dsn, err := url.Parse(c.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		dsn.User = url.UserPassword(dsn.User.Username(), "wrong")
		if conn, err := pgx.Connect(t.Context(), dsn.String()); err == nil {
			conn.Close(t.Context())
			t.Error("connected with a wrong password")
		}
		var addresses, sockets string
		err = connect(t, c.URL("postgres")).QueryRow(t.Context(),
			"SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories')").Scan(&addresses, &sockets)
		if err != nil || addresses != "127.0.0.1" || sockets != "" {
			t.Errorf("listens on %q and %q, error %v", addresses, sockets, err)
		}
		info, err := os.Stat(filepath.Join(c.Home(), "password"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("password file: %v, error %v", info, err)
		}
	})

	t.Run("says what the server says when a setting is wrong", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "postgres")
		t.Cleanup(func() { _ = postgres.Remove(dir) })
		_, err := postgres.Start(t.Context(), postgres.Config{
			Dir: dir, NoSync: true, Logger: quiet(), Settings: map[string]string{"max_connections": "many"},
		})
		if err == nil || !strings.Contains(err.Error(), "max_connections") {
			t.Fatalf("error %v, want one that names max_connections", err)
		}
		// The failed start gave the directory up.
		start(t, dir)
	})
}

func TestKill(t *testing.T) {
	t.Parallel()

	t.Run("is followed by a restart on the same port that lost nothing", func(t *testing.T) {
		t.Parallel()
		c := start(t, filepath.Join(t.TempDir(), "postgres"))
		dsn := c.URL("postgres")
		exec(t, dsn, "CREATE TABLE kept AS SELECT 1")
		// A session at work holds the dead server's shared memory longest.
		busy := connect(t, dsn)
		broken := make(chan error, 1)
		go func() {
			_, err := busy.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 10000000000)")
			broken <- err
		}()
		for round := range 3 {
			pid := c.PID()
			if err := c.Kill(); err != nil {
				t.Fatal(err)
			}
			if n := count(t, dsn); n != 1 {
				t.Fatalf("round %d: %d rows, want 1", round, n)
			}
			if now := c.PID(); now == pid {
				t.Fatalf("round %d: process %d was not replaced", round, pid)
			}
		}
		if err := <-broken; err == nil {
			t.Error("a session survived the kill")
		}
	})

	t.Run("of the postmaster alone leaves busy sessions that the restart clears", func(t *testing.T) {
		t.Parallel()
		c := start(t, filepath.Join(t.TempDir(), "postgres"))
		dsn := c.URL("postgres")
		exec(t, dsn, "CREATE TABLE kept AS SELECT 1")
		busy := connect(t, dsn)
		broken := make(chan error, 1)
		go func() {
			_, err := busy.Exec(t.Context(), "SELECT count(*) FROM generate_series(1, 10000000000)")
			broken <- err
		}()
		process, err := os.FindProcess(c.PID())
		if err != nil {
			t.Fatal(err)
		}
		if err := process.Kill(); err != nil {
			t.Fatal(err)
		}
		if n := count(t, dsn); n != 1 {
			t.Fatalf("%d rows, want 1", n)
		}
		if err := <-broken; err == nil {
			t.Error("a session survived the kill")
		}
	})
}

func TestStop(t *testing.T) {
	t.Parallel()

	t.Run("ends in time with a session open and no time left", func(t *testing.T) {
		t.Parallel()
		c := start(t, filepath.Join(t.TempDir(), "postgres"))
		connect(t, c.URL("postgres"))
		pid := c.PID()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Stop(ctx) // whether the clean way was quick enough is open
		if processExists(pid) {
			t.Errorf("process %d runs after Stop", pid)
		}
	})

	t.Run("works while the server is being restarted", func(t *testing.T) {
		t.Parallel()
		c := start(t, filepath.Join(t.TempDir(), "postgres"))
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
