package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// attemptIndex finds the attempts that carried an event; attemptCell is what it is
// made of, as in the migration that declares it.
const (
	attemptIndex = "attempts_event"
	attemptCell  = `((((first_sequence >> 1) >> (4 * length(to_hex(first_sequence # last_sequence)) - 1)) << 28)
		# ((hashtext(subscriber) & 16777215)::bigint << 4) # (length(to_hex(first_sequence # last_sequence)) & 15))`
)

// partitionIndex is the index of one partition.
type partitionIndex struct {
	partition string
	// name is the index there is; "": none. It is good once it is valid, and
	// being built where somebody else is at it.
	name            string
	valid, building bool
}

// EnsureAttemptIndexes builds the index that explains deliveries for partitions
// of attempts that were made without it, beside those who insert. Partitions
// made since have it from the start, so that it usually finds nothing to do.
// Several processes may call it at once.
func (s *Store) EnsureAttemptIndexes(ctx context.Context) error {
	missing, err := collect(ctx, s, "list indexes of attempts", func(row pgx.CollectableRow) (partitionIndex, error) {
		var p partitionIndex
		err := row.Scan(&p.partition, &p.name, &p.valid, &p.building)
		return p, err
	}, `SELECT t.relname, coalesce(i.relname, ''), coalesce(x.indisvalid, false),
			i.oid IS NOT NULL AND EXISTS (SELECT FROM pg_stat_progress_create_index g WHERE g.index_relid = i.oid)
		FROM pg_inherits p JOIN pg_class t ON t.oid = p.inhrelid
		LEFT JOIN pg_class i ON i.relname = t.relname || '_event' AND i.relnamespace = t.relnamespace
		LEFT JOIN pg_index x ON x.indexrelid = i.oid
		WHERE p.inhparent = 'attempts'::regclass AND NOT EXISTS (
			SELECT FROM pg_index c JOIN pg_inherits h ON h.inhrelid = c.indexrelid
			WHERE c.indrelid = t.oid AND h.inhparent = $1::text::regclass)
		ORDER BY t.relname DESC`, attemptIndex)
	if err != nil || len(missing) == 0 {
		return err
	}
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("index attempts: %w", err)
	}
	// A large partition takes longer than statements usually may: the session is
	// not used for anything else afterwards.
	defer func() {
		closing := conn.Hijack()
		_ = closing.Close(context.WithoutCancel(ctx))
	}()
	if _, err := conn.Exec(ctx, `SET statement_timeout = 0`); err != nil {
		return fmt.Errorf("index attempts: %w", err)
	}
	var faults []error
	for _, p := range missing {
		if p.building {
			continue
		}
		if err := indexPartition(ctx, conn, p); err != nil && !hasCode(err, sqlstateUndefinedTable) { // dropped meanwhile
			faults = append(faults, fmt.Errorf("index attempts of %s: %w", p.partition, err))
		}
	}
	return errors.Join(faults...)
}

func indexPartition(ctx context.Context, conn *pgxpool.Conn, p partitionIndex) error {
	table := pgx.Identifier{p.partition}.Sanitize()
	name := pgx.Identifier{p.partition + "_event"}.Sanitize()
	if p.name != "" && !p.valid { // a build was broken off
		if _, err := conn.Exec(ctx, `DROP INDEX CONCURRENTLY IF EXISTS `+name); err != nil {
			return err
		}
	}
	if !p.valid {
		if _, err := conn.Exec(ctx, `CREATE INDEX CONCURRENTLY `+name+` ON `+table+` (`+attemptCell+`)`); err != nil {
			return err
		}
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := lockPartitions(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `ALTER INDEX `+attemptIndex+` ATTACH PARTITION `+name)
		return err
	})
}
