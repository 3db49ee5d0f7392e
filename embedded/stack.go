package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"postroad/internal/dirlock"
	"postroad/internal/ports"
	"postroad/internal/postgres"
)

// lastStopMax is what PostgreSQL gets to stop in when the time for Stop was used
// up before its turn: killing it would cost the next start a recovery.
const lastStopMax = 5 * time.Second

// Stack is what Start started.
type Stack struct {
	DatabaseURL     string // empty with WithoutDatabase
	TemporalAddress string // host:port to dial
	UIURL           string // empty with WithoutUI
	Namespace       string
	ClusterID       string // the Temporal cluster's id; it stays with the data directory

	cfg      Config
	dir      *dataDir
	database *postgres.Cluster // nil with a database of the user's own

	mu       sync.Mutex // guards what follows; held while Temporal starts or stops
	temporal *temporalServer
	ui       *uiServer
	stopOnce sync.Once
	stopErr  error
}

// Start starts the stack and returns when all of it takes requests. A data
// directory in use gives a *dirlock.HeldError that names its holder; an address
// in use gives an error that names the address.
func Start(ctx context.Context, cfg Config) (*Stack, error) {
	cfg = cfg.WithDefaults()
	if slim {
		return nil, ErrSlim
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	dir, err := openDataDir(cfg.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Stack{cfg: cfg, dir: dir, Namespace: cfg.Namespace, DatabaseURL: cfg.DatabaseURL}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (s *Stack) start(ctx context.Context) error {
	// Addresses come first: a taken one is the usual fault, and the UI would exit the process over it.
	temporalListen, err := freeAddress(s.cfg.TemporalListen)
	if err != nil {
		return fmt.Errorf("listen for Temporal on %s: %w", s.cfg.TemporalListen, err)
	}
	s.TemporalAddress = dialable(temporalListen)
	if s.ClusterID, err = s.dir.clusterID(); err != nil {
		return err
	}
	if s.DatabaseURL == "" && !s.cfg.WithoutDatabase {
		if err := s.startDatabase(ctx); err != nil {
			return err
		}
	}
	s.temporal = newTemporal(s.cfg, s.dir, temporalListen, s.ClusterID)
	if err := s.StartTemporal(ctx); err != nil {
		return err
	}
	if s.cfg.WithoutUI {
		return nil
	}
	return s.startUI(ctx)
}

func (s *Stack) startDatabase(ctx context.Context) error {
	cluster, err := postgres.Start(ctx, postgres.Config{
		Dir: s.dir.postgres(), Settings: s.cfg.PostgresSettings, NoSync: s.cfg.NoSync, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	s.database = cluster
	if err := cluster.CreateDatabase(ctx, databaseName); err != nil {
		return err
	}
	s.DatabaseURL = cluster.URL(databaseName)
	return nil
}

func (s *Stack) startUI(ctx context.Context) error {
	listen, err := freeAddress(s.cfg.UIListen)
	if err != nil {
		return fmt.Errorf("listen for the Temporal UI on %s: %w", s.cfg.UIListen, err)
	}
	if s.ui, err = startUI(ctx, listen, s.TemporalAddress, s.cfg.Namespace); err != nil {
		return fmt.Errorf("start the Temporal UI: %w", err)
	}
	s.UIURL = "http://" + dialable(listen)
	s.cfg.Logger.Info("the Temporal UI is running", "url", s.UIURL)
	return nil
}

// StartTemporal starts Temporal's server again after StopTemporal, at the same
// address and with the same data. While it runs this does nothing.
func (s *Stack) StartTemporal(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clusterID, err := s.temporal.start(ctx)
	if err != nil {
		return fmt.Errorf("start Temporal: %w", err)
	}
	if clusterID != s.ClusterID {
		// The id was lost, not the data: what the data says holds.
		if err := s.dir.saveClusterID(clusterID); err != nil {
			return err
		}
		s.ClusterID = clusterID
	}
	s.cfg.Logger.Info("Temporal is running", "address", s.TemporalAddress, "namespace", s.Namespace)
	return nil
}

// StopTemporal stops Temporal's server and leaves all else running: for tests of
// an outage. A second call does nothing.
func (s *Stack) StopTemporal(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.temporal.stop(ctx); err != nil {
		return fmt.Errorf("stop Temporal: %w", err)
	}
	return nil
}

// KillDatabase kills the private PostgreSQL with SIGKILL; it is restarted at
// once, at the same address: for tests.
func (s *Stack) KillDatabase() error {
	if s.database == nil {
		return errors.New("kill PostgreSQL: it is not ours")
	}
	return s.database.Kill()
}

// DatabasePID is the private PostgreSQL's process id; 0 without one, and between
// its death and its restart.
func (s *Stack) DatabasePID() int {
	if s.database == nil {
		return 0
	}
	return s.database.PID()
}

// Stop stops the UI, Temporal and PostgreSQL, in this order, and gives the data
// directory up; callers stop their workers and clients first. When ctx ends, what
// remains is stopped the quick way, without loss. Later calls return the first's
// result.
func (s *Stack) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { s.stopErr = s.stop(ctx) })
	return s.stopErr
}

func (s *Stack) stop(ctx context.Context) error {
	var errs []error
	if s.ui != nil {
		s.ui.stop()
	}
	if s.temporal != nil {
		errs = append(errs, s.StopTemporal(ctx))
	}
	if s.database != nil {
		if ctx.Err() != nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), lastStopMax)
			defer cancel()
		}
		errs = append(errs, s.database.Stop(ctx))
	}
	errs = append(errs, s.dir.close())
	return errors.Join(errs...)
}

// Remove deletes the data directory of a stopped stack, and its database where
// that lies elsewhere.
func Remove(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := dirlock.Acquire(dir)
	if err != nil {
		return fmt.Errorf("remove data directory: %w", err)
	}
	defer func() { _ = lock.Release() }() // the process's end releases it too
	if err := postgres.Remove(filepath.Join(dir, postgresDir)); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// freeAddress checks that address can be listened on and picks the port where it is 0.
func freeAddress(address string) (*net.TCPAddr, error) {
	parsed, err := parseListen(address)
	if err != nil {
		return nil, err
	}
	if parsed.Port == 0 {
		free, err := ports.Free(1)
		if err != nil {
			return nil, err
		}
		parsed.Port = free[0]
		return parsed, nil // looking twice would only find what a child that is being started holds for a moment
	}
	return parsed, ports.Check(parsed.String())
}

// dialable is where a server listening on address is reached from this machine.
func dialable(address *net.TCPAddr) string {
	host := address.IP.String()
	if address.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(address.Port))
}
