package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"postroad/internal/postgres"
)

// stage is what all runs share: PostgreSQL as Postroad runs it, but for counting
// statements.
type stage struct {
	cfg      Config
	dir      string
	cluster  *postgres.Cluster
	products int // started so far
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.cfg.Progress, format+"\n", args...) }

func (s *stage) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.StartMax, fmt.Errorf("not ready within %s", s.cfg.StartMax))
	defer cancel()
	s.say("starting PostgreSQL")
	return s.startPostgres(ctx)
}

// startPostgres counts statements where the server has what counts them.
func (s *stage) startPostgres(ctx context.Context) error {
	cfg := postgres.Config{
		Dir: filepath.Join(s.dir, "postgres"), Logger: slog.New(slog.DiscardHandler),
		Settings: map[string]string{"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.save": "off"},
	}
	var err error
	if s.cluster, err = postgres.Start(ctx, cfg); err != nil && ctx.Err() == nil {
		cfg.Settings = nil
		s.cluster, err = postgres.Start(ctx, cfg)
	}
	if err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	return nil
}

// stop ends everything and removes the data.
func (s *stage) stop(ctx context.Context) error {
	var errs []error
	if s.cluster != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StopMax)
		defer cancel()
		errs = append(errs, s.cluster.Stop(ctx))
	}
	return errors.Join(append(errs, s.removeData())...)
}

// removeData removes the data, and the database where that had to lie elsewhere.
func (s *stage) removeData() error {
	if err := postgres.Remove(filepath.Join(s.dir, "postgres")); err != nil {
		return fmt.Errorf("remove the database: %w", err)
	}
	return removeAll(s.dir)
}
