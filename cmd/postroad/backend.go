package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"postroad/eventlog"
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
	if b.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), poolConfig); err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	pool := b.pool // an error's return has no b any more
	defer func() {
		if err != nil {
			pool.Close()
		}
	}()
	if err := awaitDatabase(ctx, b.pool, cfg); err != nil {
		return nil, err
	}
	if err := store.CheckSchema(ctx, b.pool); err != nil {
		return nil, err
	}
	sealer, err := store.OpenSealer(ctx, b.pool, cfg.keyFile, cfg.mayMakeKey)
	if err != nil {
		return nil, fmt.Errorf("open the master key: %w", err)
	}
	b.store = store.New(b.pool, sealer, store.WithLogger(cfg.logger))
	b.log = eventlog.New(b.pool, eventlog.Config{ListenURL: b.directURL, Logger: cfg.logger})
	if err := b.log.Start(context.WithoutCancel(ctx)); err != nil {
		return nil, fmt.Errorf("start the log: %w", err)
	}
	b.registry = newRegistry(b.pool, b.log.Collectors())
	return b, nil
}

// awaitDatabase lets a database start beside us.
func awaitDatabase(ctx context.Context, pool *pgxpool.Pool, cfg backendConfig) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.connectMax)
	defer cancel()
	for pause, told := 100*time.Millisecond, false; ; pause = min(2*pause, 2*time.Second) {
		err := pool.Ping(ctx)
		if err == nil || !store.Unavailable(err) {
			return wrapConnect(err)
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
			return wrapConnect(err)
		}
	}
}

func wrapConnect(err error) error {
	if err != nil {
		return unavailableError{fmt.Errorf("connect to the database: %w", err)}
	}
	return nil
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
