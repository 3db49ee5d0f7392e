package postgres_test

import (
	"bufio"
	"context"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"postroad/internal/postgres"
)

// ownerDirEnv makes this test binary a process that owns a cluster until it is killed.
const ownerDirEnv = "POSTROAD_TEST_POSTGRES_OWNER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerDirEnv); dir != "" {
		own(dir)
	}
	os.Exit(m.Run())
}

func own(dir string) {
	c, err := postgres.Start(context.Background(), postgres.Config{Dir: dir, NoSync: true, Logger: quiet()})
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	os.Stdout.WriteString(strconv.Itoa(c.PID()) + " " + c.URL("postgres") + "\n")
	select {}
}

// killedOwner runs a process that starts a cluster in dir, lets it be used, and
// kills the process. The server's process id is returned; it runs on.
func killedOwner(t *testing.T, dir string, use func(dsn string)) int {
	t.Helper()
	cmd := osexec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), ownerDirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pidText, dsn, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(pidText)
	if err != nil {
		t.Fatal(err)
	}
	use(dsn)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return pid
}

func processExists(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestOrphan(t *testing.T) {
	t.Parallel()

	t.Run("is stopped and its data taken over", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "postgres")
		var dsn string
		orphan := killedOwner(t, dir, func(url string) {
			dsn = url
			exec(t, url, "CREATE TABLE kept AS SELECT 1")
		})
		if !processExists(orphan) {
			t.Fatal("the server did not outlive its owner")
		}
		c := start(t, dir)
		if c.URL("postgres") != dsn {
			t.Errorf("URL changed from %s to %s", dsn, c.URL("postgres"))
		}
		if n := count(t, dsn); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})

	t.Run("that died too is no hindrance, and neither is a stranger with its process id", func(t *testing.T) {
		t.Parallel()
		dir := filepath.Join(t.TempDir(), "postgres")
		var dsn string
		orphan := killedOwner(t, dir, func(url string) {
			dsn = url
			exec(t, url, "CREATE TABLE kept AS SELECT 1")
		})
		if err := syscall.Kill(orphan, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		pidFile := filepath.Join(homeOf(t, dir), "data", "postmaster.pid")
		text, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "\n")
		if err := os.WriteFile(pidFile, []byte(strconv.Itoa(stranger(t, pidFile))+"\n"+rest), 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, dir)
		if n := count(t, dsn); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

// stranger starts a process of the file's owner, whom alone PostgreSQL heeds.
func stranger(t *testing.T, file string) int {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.CommandContext(t.Context(), "sleep", "300")
	if owner := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// homeOf is where the cluster of dir really lies.
func homeOf(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(dir + ".path")
	if os.IsNotExist(err) {
		return dir
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
