package eventlog

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// sessionSettings are what every session must have, whatever the role or the
// database say. Append relies on read committed; an answered write must have
// reached the disk. Plans are kept, and our tables grow faster than their
// statistics: a plan made while a table was small must not read it whole, or
// sort it, once it is big, so every plan goes by an index. Compiling queries
// this short only costs time.
const sessionSettings = `SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local');
SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off`

// PoolConfig reads a connection URL and adds the session settings that all of
// Postroad's connections need. The caller may still change it.
func PoolConfig(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("read database URL: %w", err)
	}
	config.AfterConnect = PrepareSession
	return config, nil
}

// PrepareSession gives a new connection the session settings that all of
// Postroad's connections need.
func PrepareSession(ctx context.Context, conn *pgx.Conn) error {
	// The simple protocol sends all statements in one round trip.
	if _, err := conn.PgConn().Exec(ctx, sessionSettings).ReadAll(); err != nil {
		return fmt.Errorf("prepare session: %w", err)
	}
	return nil
}
