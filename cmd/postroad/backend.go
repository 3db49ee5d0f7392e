package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"postroad/eventlog"
	"postroad/internal/config"
	"postroad/store"
)

// backendConfig says how a server reaches PostgreSQL.
type backendConfig struct {
	// databaseURL may lead through a pooler, directURL (default: the same) may
	// not.
	databaseURL, directURL string
	keyFile                string
	// mayMakeKey lets the first start make the key.
	mayMakeKey bool
	// keysKept is how long an idempotency key counts; 0: the log's default.
	keysKept time.Duration
	// connectMax bounds the wait for a database that does not answer yet.
	connectMax time.Duration
	logger     *slog.Logger
}

// backend is what the API and the worker have in common: the database and what
// is built on it.
type backend struct {
	pool      *pgxpool.Pool
	store     *store.Store
	log       *eventlog.Log
	directURL string
	registry  *prometheus.Registry
}

// openBackend connects, refuses a schema or a key that does not fit, and starts
// the log.
func openBackend(ctx context.Context, cfg backendConfig) (b *backend, err error) {
	b = &backend{directURL: cfg.directURL}
	if b.directURL == "" {
		b.directURL = cfg.databaseURL
	}
	poolConfig, err := store.PoolConfig(cfg.databaseURL)
	if err != nil {
		return nil, err
	}
	err = awaitDatabase(ctx, cfg, func(ctx context.Context) error { return checkPoolers(ctx, cfg, poolConfig) })
	if err != nil {
		return nil, err
	}
	if b.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), poolConfig); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	pool := b.pool // an error's return has no b any more
	defer func() {
		if err != nil {
			pool.Close()
		}
	}()
	if err := store.CheckSchema(ctx, b.pool); err != nil {
		return nil, err
	}
	sealer, err := store.OpenSealer(ctx, b.pool, cfg.keyFile, cfg.mayMakeKey)
	if err != nil {
		return nil, fmt.Errorf("open the master key: %w", err)
	}
	b.store = store.New(b.pool, sealer, store.WithLogger(cfg.logger))
	b.log = eventlog.New(b.pool, eventlog.Config{ListenURL: b.directURL, KeyRetention: cfg.keysKept, Logger: cfg.logger})
	if err := b.log.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("start the log: %w", err)
	}
	b.registry = newRegistry(b.pool, b.log.Collectors())
	return b, nil
}

// checkPoolers refuses a way to PostgreSQL that loses what sessions listen to and
// lock, and makes the pool fit for one that may.
func checkPoolers(ctx context.Context, cfg backendConfig, pool *pgxpool.Config) error {
	pooled, err := store.TransactionPooler(ctx, cfg.databaseURL)
	if err != nil || !pooled {
		return err
	}
	if cfg.directURL == "" || cfg.directURL == cfg.databaseURL {
		return usagef("--database-url: %w: give one past it, too, as --database-direct-url (or %s)",
			store.ErrTransactionPooler, config.FlagVariable("database-direct-url"))
	}
	if pooled, err = store.TransactionPooler(ctx, cfg.directURL); err != nil {
		return err
	}
	if pooled {
		return usagef("--database-direct-url: %w: give one past it", store.ErrTransactionPooler)
	}
	advised, err := store.CheckPooled(ctx, cfg.directURL)
	if err != nil {
		return err
	}
	if advised != nil {
		cfg.logger.Warn("the pooler keeps us from making settings for each session: plans may be slow without them",
			"run", strings.Join(advised.Statements(), "; "))
	}
	store.ThroughPooler(pool)
	return nil
}

// awaitDatabase lets a database start beside us.
func awaitDatabase(ctx context.Context, cfg backendConfig, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.connectMax)
	defer cancel()
	for pause, told := 100*time.Millisecond, false; ; pause = min(2*pause, 2*time.Second) {
		err := try(ctx)
		if err == nil || !store.Unavailable(err) {
			return err
		}
		if !told {
			cfg.logger.Warn("waiting for the database", "error", err)
			told = true
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return unavailableError{err}
		}
	}
}

// ready says whether the database can be used.
func (b *backend) ready(ctx context.Context) error { return store.CheckSchema(ctx, b.pool) }

// close ends the log and the connections. Whoever uses them has stopped.
func (b *backend) close() {
	b.log.Close()
	b.pool.Close()
}

// errForced is why a stop was cut short.
var errForced = errors.New("stopped at once on a second signal")
