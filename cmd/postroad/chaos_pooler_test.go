//go:build chaos

package main_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/contract"
	"postroad/internal/ports"
	"postroad/internal/testkit"
)

// startBouncer starts a PgBouncer in front of a database and returns the URL
// through it.
func startBouncer(t *testing.T, database, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer" // Debian's, not in everybody's PATH
	}
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	free, err := ports.Free(1)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	dir := t.TempDir()
	file := filepath.Join(dir, "pgbouncer.ini")
	text := fmt.Sprintf(`[databases]
pooled = host=%s port=%s dbname=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
auth_type = any
unix_socket_dir =
pool_mode = %s
default_pool_size = 6
`, u.Hostname(), u.Port(), strings.TrimPrefix(u.Path, "/"), u.User.Username(), password, free[0], mode)
	if os.Getuid() == 0 { // it refuses to be root
		text += "user = nobody\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	command := exec.Command(program, file)
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatalf("start PgBouncer (Debian: apt-get install pgbouncer): %v", err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(free[0]))
	testkit.Eventually(t, waitMax, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, "PgBouncer listens")
	return "postgres://" + u.User.Username() + "@" + address + "/pooled?sslmode=disable"
}

// TestChaosPooler runs everything through a PgBouncer in transaction mode. It
// needs one (Debian: apt-get install pgbouncer).
func TestChaosPooler(t *testing.T) {
	t.Parallel()
	p := newTopology(t)
	pooled, session := startBouncer(t, p.database, "transaction"), startBouncer(t, p.database, "session")

	// Without a way past it nothing starts.
	refused := func(want string, args ...string) {
		t.Helper()
		c := startChildWith(t, t.TempDir(), append(slices.Clone(p.environ), "POSTROAD_DATABASE_URL="+pooled), args...)
		if code := c.wait(startMax); code != 2 || !strings.Contains(c.stderr.String(), want) {
			t.Errorf("%s through the pooler ended with code %d, want %q:\n%s", args, code, want, c.stderr.String())
		}
	}
	for _, command := range []string{"api", "worker"} {
		refused("--database-direct-url", command)
		refused("--database-direct-url", command, "--database-direct-url", pooled)
	}
	refused("--database-url", "migrate")

	through := *p
	through.environ = append(slices.Clone(p.environ), "POSTROAD_DATABASE_URL="+pooled, "POSTROAD_DATABASE_DIRECT_URL="+p.database)

	// What would lose events is refused.
	conn, err := pgx.Connect(t.Context(), p.database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var name string
	if err := conn.QueryRow(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	alter := func(what string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), "ALTER DATABASE "+pgx.Identifier{name}.Sanitize()+what); err != nil {
			t.Fatal(err)
		}
	}
	alter(" SET synchronous_commit = off")
	c := startChildWith(t, t.TempDir(), through.environ, "api")
	if code := c.wait(startMax); code != 1 || !strings.Contains(c.stderr.String(), "SET synchronous_commit") {
		t.Errorf("without synchronous_commit the API ended with code %d:\n%s", code, c.stderr.String())
	}
	alter(" RESET synchronous_commit")

	api := through.api()
	first := through.worker()
	events := testkit.Lines(t, "sdk-go")
	var roads []*road
	for i := range 12 { // more than the pooler has sessions
		r := newRoad(t, api.api, "road-"+strconv.Itoa(i+1), slow(5*time.Millisecond), nil)
		r.publish(events[:1500])
		roads = append(roads, r)
	}
	roads[0].consumer.WaitFor(t, 100, waitMax)
	if status := roads[0].control(contract.ControlPause); status != http.StatusOK {
		t.Errorf("pause answered %d", status)
	}
	roads[0].awaitPaused()
	roads[0].control(contract.ControlResume)
	through.worker()
	first.terminate()
	for _, r := range roads {
		r.consumer.SetScript(nil)
	}
	for _, r := range roads {
		r.awaitCursor(deliveredMax, 1500)
		onceInOrder(t, r.consumer.Requests(), 1500)
	}
	for _, log := range []*lockedBuffer{&api.stderr, &first.stderr} {
		if text := log.String(); strings.Contains(text, "prepared statement") || strings.Contains(text, "level=ERROR") {
			t.Errorf("the log complains:\n%s", text)
		}
	}

	// A pooler in session mode is as good as none.
	direct := *p
	direct.environ = append(slices.Clone(p.environ), "POSTROAD_DATABASE_URL="+session)
	if answered := get(t, direct.api().api.URL+"/readyz"); answered != http.StatusOK {
		t.Errorf("in session mode the API answers %d", answered)
	}
}
