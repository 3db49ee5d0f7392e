// Package testkit gives tests what they must not fake: a real PostgreSQL
// database each, a consumer that answers by script, and waiting without sleeps.
package testkit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/internal/postgres"
)

// DatabaseURLEnv names a server to test against instead of a private cluster. Its
// role must be allowed to create databases.
const DatabaseURLEnv = "POSTROAD_TEST_DATABASE_URL"

const (
	startMax = 2 * time.Minute
	dropMax  = 30 * time.Second
)

// shared is the server that all tests of this process use.
var shared struct {
	sync.Mutex
	server   *server
	startErr error
}

type server struct {
	url      func(database string) string
	stop     func() error
	template func(migrate func(context.Context, string) error) (string, error)
}

// Run runs the tests of a package and then removes what Database started: call
// os.Exit(testkit.Run(m)) in TestMain. A test process that dies another way
// leaves no server behind either.
func Run(m *testing.M) int {
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "testkit:", err)
		return 1
	}
	return code
}

// Database returns the URL of a database of the test's own, dropped at its end.
// It is a copy of one that migrate prepared, once per process, so all calls in a
// process pass the same migrate; nil gives an empty database. migrate must leave
// no connection open.
func Database(t testing.TB, migrate func(ctx context.Context, url string) error) string {
	t.Helper()
	s, err := sharedServer()
	if err != nil {
		t.Fatalf("start test server: %v", err)
	}
	template := "template0"
	if migrate != nil {
		if template, err = s.template(migrate); err != nil {
			t.Fatalf("prepare template database: %v", err)
		}
	}
	name := "test_" + randomName()
	if err := s.exec("CREATE DATABASE " + name + " TEMPLATE " + template); err != nil {
		t.Fatalf("create test database: %v", err)
	}
	t.Cleanup(func() {
		if err := s.exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	return s.url(name)
}

// Cluster starts a private cluster for one test that kills it or changes its
// settings.
func Cluster(t testing.TB) *postgres.Cluster {
	t.Helper()
	cluster, stop, err := startCluster()
	if err != nil {
		t.Fatalf("start test cluster: %v", err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop test cluster: %v", err)
		}
	})
	return cluster
}

func sharedServer() (*server, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.startErr == nil {
		shared.server, shared.startErr = newServer(os.Getenv(DatabaseURLEnv))
	}
	return shared.server, shared.startErr
}

func stopShared() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return nil
	}
	s := shared.server
	shared.server = nil
	return s.stop()
}

func newServer(existing string) (*server, error) {
	s := &server{}
	if existing != "" {
		u, err := url.Parse(existing)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", DatabaseURLEnv, err)
		}
		s.url = func(database string) string {
			other := *u
			if database != "" {
				other.Path = "/" + database
			}
			return other.String()
		}
		s.stop = func() error { return nil }
	} else {
		cluster, stop, err := startCluster()
		if err != nil {
			return nil, err
		}
		s.url = func(database string) string {
			if database == "" {
				database = "postgres"
			}
			return cluster.URL(database)
		}
		s.stop = stop
	}
	s.rememberTemplate()
	return s, nil
}

// rememberTemplate makes s.template prepare its database at the first call only.
func (s *server) rememberTemplate() {
	var once sync.Once
	var prepareErr error
	name := "template_" + randomName()
	s.template = func(migrate func(context.Context, string) error) (string, error) {
		once.Do(func() {
			if prepareErr = s.exec("CREATE DATABASE " + name); prepareErr != nil {
				return
			}
			stop := s.stop
			s.stop = func() error {
				return errors.Join(s.exec("DROP DATABASE "+name+" WITH (FORCE)"), stop())
			}
			ctx, cancel := context.WithTimeout(context.Background(), startMax)
			defer cancel()
			prepareErr = migrate(ctx, s.url(name))
		})
		return name, prepareErr
	}
}

// exec runs one statement in the server's maintenance database.
func (s *server) exec(sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), dropMax)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url(""))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, sql)
	return err
}

func startCluster() (*postgres.Cluster, func() error, error) {
	root, err := os.MkdirTemp("", "postroad-test-")
	if err != nil {
		return nil, nil, err
	}
	// PostgreSQL runs as another user where we are root, and must pass through.
	if err := os.Chmod(root, 0o711); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startMax)
	defer cancel()
	dir := filepath.Join(root, "postgres")
	cluster, err := postgres.Start(ctx, postgres.Config{
		Dir: dir, NoSync: true, RestartDelay: 20 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, errors.Join(err, postgres.Remove(dir), os.RemoveAll(root))
	}
	release, err := guard(cluster.Home(), root)
	if err != nil {
		_ = cluster.Kill()
	}
	stop := func() error {
		// Nothing in it is kept: no time is lost on a checkpoint.
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = cluster.Stop(now)
		return errors.Join(postgres.Remove(dir), os.RemoveAll(root), release())
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return cluster, stop, nil
}

// guardScript waits for the end of its input, that is of this process, then ends
// the server of the home $1 and removes $1 and $2.
const guardScript = `cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" && while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
rm -rf "$1" "$2"`

// guard lets no server outlive a test process that is killed or calls os.Exit.
// The function returned ends the guard, after the server was removed.
func guard(home, root string) (func() error, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "guard", home, root)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return func() error { return nil }, fmt.Errorf("start guard: %w", err)
	}
	return func() error {
		input.Close()
		return cmd.Wait()
	}, nil
}

func randomName() string {
	random := make([]byte, 8)
	rand.Read(random)
	return hex.EncodeToString(random)
}
