// Package postgres runs a private PostgreSQL cluster in a directory: it finds
// the server's programs, initialises the cluster, keeps the server running and
// stops it. It listens on loopback TCP only, behind a generated password.
//
// The server runs in a session of its own, so a Ctrl-C meant for us does not
// reach it first, and it outlives a kill -9 of our process; the next Start in
// that directory stops such an orphan cleanly before it starts its own. Unix
// only.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// superuser is the one role of a private cluster.
const superuser = "postroad"

// Config says where and how a cluster runs.
type Config struct {
	// Dir holds the cluster; required. Where we are root and the account that
	// PostgreSQL must run as cannot reach Dir, the cluster lies in
	// /var/lib/postroad/<hash of Dir> and the file Dir + ".path" names that.
	Dir string
	// Port on 127.0.0.1. Zero: the one used last in Dir if it is free, else any.
	// It never changes while a Cluster runs, restarts of the server included.
	Port int
	// Settings are server settings on top of ours, as in postgresql.conf.
	Settings map[string]string
	// NoSync gives durability up for speed: tests only.
	NoSync bool
	// RestartDelay is the pause after the first failed restart of a dead server; it
	// doubles up to 50 times that. Default 100 ms. The first try follows at once.
	RestartDelay time.Duration
	// Logger tells of starts, deaths and restarts. Default: slog.Default. What the
	// server itself says goes to the file postgres.log beside its data.
	Logger *slog.Logger
}

// WithDefaults returns a copy with the defaults filled in.
func (c Config) WithDefaults() Config {
	if c.RestartDelay == 0 {
		c.RestartDelay = 100 * time.Millisecond
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("postgres: Dir is required")
	}
	if c.Port < 0 || c.Port > 65535 {
		return fmt.Errorf("postgres: Port %d is not a port", c.Port)
	}
	if c.RestartDelay < 0 {
		return fmt.Errorf("postgres: RestartDelay %s is negative", c.RestartDelay)
	}
	return nil
}

// settings are the server's settings for one start.
func (c Config) settings(port int, clusterName string) map[string]string {
	all := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(port),
		"unix_socket_directories": "", // a socket's path may be 107 bytes long at most
		"cluster_name":            clusterName,
		"max_connections":         "300",
		"shared_buffers":          "256MB",
		"synchronous_commit":      "on",
		"max_wal_size":            "2GB",
		"jit":                     "off", // our statements are short
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"logging_collector":       "off",
		"update_process_title":    "on", // orphaned backends are known by their title
	}
	if c.NoSync {
		all["fsync"] = "off"
		all["full_page_writes"] = "off"
		all["shared_buffers"] = "128MB"
	}
	maps.Copy(all, c.Settings)
	return all
}

// Cluster is a running cluster.
type Cluster struct {
	cfg      Config
	home     *home
	programs programs
	port     int

	mu   sync.Mutex
	proc *process // the server's present process; nil between two of them

	stopOnce sync.Once
	stopping chan struct{} // closed by the first Stop
	hurry    chan struct{} // closed when a Stop runs out of time
	done     chan struct{} // closed when the server is gone for good
	stopErr  error         // valid once done is closed
}

// Start initialises Dir where it is empty, stops a server left over there by a
// killed process, and starts the server. It returns once the server takes
// connections, which after a crash may take as long as recovery does: bound it
// with ctx. Another live owner of Dir: a *dirlock.HeldError.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	cfg = cfg.WithDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	h, err := openHome(ctx, cfg.Dir, cfg.Logger)
	if err != nil {
		return nil, fmt.Errorf("open PostgreSQL directory %s: %w", cfg.Dir, err)
	}
	c := &Cluster{
		cfg: cfg, home: h,
		stopping: make(chan struct{}), hurry: make(chan struct{}), done: make(chan struct{}),
	}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, h.close())
	}
	cfg.Logger.Info("PostgreSQL is running", "dir", h.dir, "port", c.port, "version", c.programs.major, "bin_dir", c.programs.dir)
	go c.supervise() //nolint:contextcheck // it outlives Start's context, until Stop
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if err := c.home.stopOrphan(ctx, c.cfg.Logger); err != nil {
		return fmt.Errorf("stop the PostgreSQL left over in %s: %w", c.home.dir, err)
	}
	major, err := c.home.major()
	if err != nil {
		return err
	}
	if c.programs, err = findPrograms(ctx, c.home.account, major, c.cfg.Logger); err != nil {
		return err
	}
	if major == 0 {
		if err := c.home.initialise(ctx, c.programs, c.cfg.NoSync); err != nil {
			return fmt.Errorf("initialise PostgreSQL in %s: %w", c.home.dir, err)
		}
	}
	return c.firstLaunch(ctx)
}

// URL is the connection string of a database in this cluster, password included.
func (c *Cluster) URL(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, c.home.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// CreateDatabase makes the database unless it exists.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// PID is the server's process id, 0 between its death and its restart.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.proc == nil {
		return 0
	}
	return c.proc.cmd.Process.Pid
}

// Home is the directory where the cluster really lies.
func (c *Cluster) Home() string { return c.home.dir }

// Stop shuts the server down (open transactions are rolled back) and gives the
// directory up. When ctx ends first, the server is killed, which costs the next
// start a recovery but no data, and Stop says so. Later calls return the first's
// result.
func (c *Cluster) Stop(ctx context.Context) error {
	c.stopOnce.Do(func() { close(c.stopping) })
	select {
	case <-c.done:
		return c.stopErr
	case <-ctx.Done():
	}
	c.mu.Lock()
	select {
	case <-c.hurry:
	default:
		close(c.hurry)
	}
	c.mu.Unlock()
	<-c.done
	return c.stopErr
}

// Kill kills the server and all its processes with SIGKILL, as a crash of the
// machine would; it is then restarted like after any other death. For tests.
func (c *Cluster) Kill() error {
	pid := c.PID()
	if pid == 0 {
		return errors.New("kill PostgreSQL: it is not running")
	}
	// Listed before the server dies: afterwards the list could hold its successor's processes.
	members, err := c.home.find(c.home.isOurs)
	if err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	if err := killAll(append([]int{pid}, members...)); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	return nil
}

// Remove deletes the stopped cluster of dir, wherever it lies. A dir without a
// cluster is no error.
func Remove(dir string) error {
	if err := removeHome(dir); err != nil {
		return fmt.Errorf("remove PostgreSQL directory %s: %w", dir, err)
	}
	return nil
}
