package testkit_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/internal/testkit"
)

// hangEnv makes this test binary one that starts its server and then hangs.
const hangEnv = "POSTROAD_TEST_HANG"

func TestMain(m *testing.M) { os.Exit(testkit.Run(m)) }

var migrations atomic.Int32

func migrate(ctx context.Context, url string) error {
	migrations.Add(1)
	return execute(ctx, url, "CREATE TABLE migrated AS SELECT 42 AS answer")
}

func execute(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func TestDatabase(t *testing.T) {
	var urls []string
	t.Run("gives each test its own, migrated once", func(t *testing.T) {
		for range 3 {
			url := testkit.Database(t, migrate)
			// Would fail at the second table of that name, and without the migrated one.
			if err := execute(t.Context(), url, "CREATE TABLE own AS SELECT answer FROM migrated"); err != nil {
				t.Fatal(err)
			}
			urls = append(urls, url)
		}
		if n := migrations.Load(); n != 1 {
			t.Errorf("migrated %d times, want once", n)
		}
		// An open connection must not keep a database from being dropped.
		if _, err := pgx.Connect(t.Context(), urls[0]); err != nil {
			t.Fatal(err)
		}
	})
	for _, url := range urls {
		if err := execute(t.Context(), url, "SELECT 1"); err == nil {
			t.Errorf("database %s is still there after its test", url)
		}
	}
	t.Run("is empty without migrations", func(t *testing.T) {
		url := testkit.Database(t, nil)
		if err := execute(t.Context(), url, "SELECT * FROM migrated"); err == nil {
			t.Error("found the migrated table")
		}
	})
}

// TestHang is the other half of TestGuard: it runs in a process of its own.
func TestHang(t *testing.T) {
	if os.Getenv(hangEnv) == "" {
		return
	}
	fmt.Println("home:", testkit.Cluster(t).Home())
	select {}
}

func TestGuard(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHang$")
	cmd.Env = append(os.Environ(), hangEnv+"=1")
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
	home := strings.TrimSpace(strings.TrimPrefix(line, "home:"))
	if _, err := os.Stat(home); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	testkit.Eventually(t, 30*time.Second, func() bool {
		_, err := os.Stat(home)
		return os.IsNotExist(err)
	}, "a killed test process left its server in "+home)
}
