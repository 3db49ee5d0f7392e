package postgres_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"postroad/internal/dirlock"
	"postroad/internal/postgres"
)

func TestHome(t *testing.T) {
	t.Parallel()

	t.Run("is the directory itself where PostgreSQL can reach it", func(t *testing.T) {
		t.Parallel()
		root, err := os.MkdirTemp("", "postroad-home-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(root) })
		if err := os.Chmod(root, 0o711); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(root, "postgres")
		if c := start(t, dir); c.Home() != dir {
			t.Errorf("it lies in %s, want %s", c.Home(), dir)
		}
		if _, err := os.Stat(dir + ".path"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there is a path file, error %v", err)
		}
	})

	t.Run("goes with its directory when that moves", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		before, after := filepath.Join(root, "before"), filepath.Join(root, "after")
		c := start(t, filepath.Join(before, "postgres"))
		exec(t, c.URL("postgres"), "CREATE TABLE kept AS SELECT 1")
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(before, after); err != nil {
			t.Fatal(err)
		}
		if n := count(t, start(t, filepath.Join(after, "postgres")).URL("postgres")); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})

	t.Run("starts empty after its directory was deleted", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		dataDir := filepath.Join(root, "data")
		dir := filepath.Join(dataDir, "postgres")
		c := start(t, dir)
		exec(t, c.URL("postgres"), "CREATE TABLE kept AS SELECT 1")
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		home := c.Home()
		if err := os.RemoveAll(dataDir); err != nil {
			t.Fatal(err)
		}
		exec(t, start(t, dir).URL("postgres"), "CREATE TABLE kept AS SELECT 1")
		aside, err := filepath.Glob(home + ".*")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, path := range aside {
				os.RemoveAll(path)
			}
		})
		if elsewhere := home != dir; elsewhere && len(aside) != 1 {
			t.Errorf("the old database was not kept beside %s: %v", home, aside)
		}
	})

	t.Run("with data but without its password is refused", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "postgres")
		c := start(t, dir)
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(c.Home(), "password")); err != nil {
			t.Fatal(err)
		}
		if _, err := postgres.Start(t.Context(), postgres.Config{Dir: dir, Logger: quiet()}); err == nil {
			t.Error("it started")
		}
	})
}

func TestRemove(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "postgres")
	if err := postgres.Remove(dir); err != nil {
		t.Errorf("nothing there: %v", err)
	}
	c := start(t, dir)
	var held *dirlock.HeldError
	if err := postgres.Remove(dir); !errors.As(err, &held) {
		t.Errorf("running: error %v", err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Remove(dir); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, dir + ".path", c.Home()} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", path)
		}
	}
}
