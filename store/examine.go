package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Examination is what a PostgreSQL server and the database say of themselves.
type Examination struct {
	// Version is the server's, as in 170002.
	Version int
	// Fsync and FullPageWrites are off on a server that may lose its data in a
	// crash; SynchronousCommit is what the role begins its sessions with.
	Fsync, FullPageWrites bool
	SynchronousCommit     string
	// Connections are open, of ConnectionsMax that ordinary roles may open.
	Connections, ConnectionsMax int
	// Ahead is how much later the server's clock is than this machine's.
	Ahead time.Duration
	// Holders keep dead rows from being removed, the oldest first, at most 20.
	Holders []XminHolder
	// StrayAttempts says that attempts lie in the default partition, where they
	// are not removed by age.
	StrayAttempts bool
}

// XminHolder is a transaction or a replication slot that holds back vacuum.
type XminHolder struct {
	// What names it for people.
	What string
	// For is how long a transaction has been open; 0 of a slot.
	For time.Duration
	// Transactions is how many have begun since, of a slot.
	Transactions int64
}

// Examine looks at the server. Transactions shorter than open, and slots with
// fewer transactions behind them than a million, are not worth a word.
func (s *Store) Examine(ctx context.Context, open time.Duration) (Examination, error) {
	var e Examination
	began := time.Now()
	var now time.Time
	if err := s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now); err != nil {
		return e, fmt.Errorf("read the server's clock: %w", err)
	}
	// The answer was made somewhere between the question and now.
	e.Ahead = now.Sub(began.Add(time.Since(began) / 2))
	err := s.pool.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('fsync')::bool, current_setting('full_page_writes')::bool,
		(SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'),
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int,
		current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
		EXISTS (SELECT FROM attempts_default)`).Scan(&e.Version, &e.Fsync, &e.FullPageWrites,
		&e.SynchronousCommit, &e.Connections, &e.ConnectionsMax, &e.StrayAttempts)
	if err != nil {
		return e, fmt.Errorf("read the server's settings: %w", err)
	}
	e.Holders, err = collect(ctx, s, "list what holds back vacuum", func(row pgx.CollectableRow) (h XminHolder, err error) {
		err = row.Scan(&h.What, &h.For, &h.Transactions)
		return h, err
	}, `SELECT format('session %s of %s (%s)', pid, coalesce(usename, 'the server'), coalesce(nullif(application_name, ''), 'no name')),
		clock_timestamp() - xact_start AS since, 0::bigint
		FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - $1::interval
		UNION ALL
		SELECT format('replication slot %s', slot_name), interval '0', greatest(age(xmin), age(catalog_xmin))::bigint
		FROM pg_replication_slots WHERE greatest(age(xmin), age(catalog_xmin)) > 1000000
		ORDER BY 2 DESC, 3 DESC LIMIT 20`, open)
	return e, err
}
