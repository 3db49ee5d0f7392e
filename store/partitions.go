package store

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// Attempts are kept in a partition per day (UTC), made ahead and dropped whole.
const (
	// PartitionDaysAhead is how many days after today have partitions.
	PartitionDaysAhead = 7
	// AttemptDaysKept is how many whole days attempts are kept.
	AttemptDaysKept = 7

	partitionPrefix = "attempts_"
	partitionDay    = "20060102"

	// partitionLock is the advisory lock that those who make or drop partitions
	// take turns by.
	partitionLock = 0x706f7374_61747470 // "postattp"
)

// EnsurePartitions makes the partitions of attempts for today and the given
// number of days after it, by PostgreSQL's clock. Attempts that fell into the
// default partition, because their day had none, are moved into the new one.
// Several processes may call it at once.
func (s *Store) EnsurePartitions(ctx context.Context, daysAhead int) error {
	today, existing, err := s.partitions(ctx)
	if err != nil {
		return fmt.Errorf("ensure partitions: %w", err)
	}
	for day := range daysAhead + 1 {
		from := today.AddDate(0, 0, day)
		if existing[partitionPrefix+from.Format(partitionDay)] {
			continue
		}
		if err := s.makePartition(ctx, from); err != nil {
			return fmt.Errorf("ensure partition of %s: %w", from.Format(time.DateOnly), err)
		}
	}
	return nil
}

// makePartition makes one day's partition in a transaction of its own. Making a
// table and attaching it does not stop those who insert into other days, as
// CREATE TABLE ... PARTITION OF would.
func (s *Store) makePartition(ctx context.Context, day time.Time) error {
	name := partitionPrefix + day.Format(partitionDay)
	from, to := quoteTime(day), quoteTime(day.AddDate(0, 0, 1))
	var moved int64
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		if err := lockPartitions(ctx, tx); err != nil {
			return err
		}
		exists, err := tableExists(ctx, tx, name)
		if err != nil || exists {
			return err // made by another process meanwhile
		}
		// Nothing may fall into the default partition between the move and the
		// attachment, which checks that nothing of that day is left in it.
		_, err = tx.Exec(ctx, `LOCK TABLE attempts IN SHARE UPDATE EXCLUSIVE MODE;
			LOCK TABLE ONLY attempts_default IN ACCESS EXCLUSIVE MODE;
			CREATE TABLE `+name+` (LIKE attempts INCLUDING CONSTRAINTS)`)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `WITH moved AS (
				DELETE FROM attempts_default WHERE started_at >= `+from+` AND started_at < `+to+` RETURNING *)
			INSERT INTO `+name+` SELECT * FROM moved`)
		if err != nil {
			return err
		}
		moved = tag.RowsAffected()
		_, err = tx.Exec(ctx, `ALTER TABLE attempts ATTACH PARTITION `+name+` FOR VALUES FROM (`+from+`) TO (`+to+`)`)
		return err
	})
	if err == nil && moved > 0 {
		s.logger.WarnContext(ctx, "attempts moved out of the default partition: their day had none",
			"day", day.Format(time.DateOnly), "attempts", moved)
	}
	return err
}

// DropOldPartitions drops the partitions of attempts older than the given
// number of whole days, and what is as old in the default partition. It returns
// how many partitions it dropped. Several processes may call it at once.
func (s *Store) DropOldPartitions(ctx context.Context, daysKept int) (int, error) {
	today, existing, err := s.partitions(ctx)
	if err != nil {
		return 0, fmt.Errorf("drop old attempts: %w", err)
	}
	cutoff := today.AddDate(0, 0, -daysKept)
	dropped := 0
	for name := range existing {
		day, err := time.Parse(partitionDay, strings.TrimPrefix(name, partitionPrefix))
		if err != nil || !day.Before(cutoff) {
			continue
		}
		err = s.inTx(ctx, func(tx pgx.Tx) error {
			if err := lockPartitions(ctx, tx); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `DROP TABLE IF EXISTS `+pgx.Identifier{name}.Sanitize())
			return err
		})
		if err != nil {
			return dropped, fmt.Errorf("drop attempts of %s: %w", day.Format(time.DateOnly), err)
		}
		dropped++
	}
	if _, err := s.pool.Exec(ctx, `DELETE FROM attempts_default WHERE started_at < $1`, cutoff); err != nil {
		return dropped, fmt.Errorf("drop old attempts of no day: %w", err)
	}
	return dropped, nil
}

// partitions returns today by PostgreSQL's clock, as midnight UTC, and the names
// of all partitions of attempts.
func (s *Store) partitions(ctx context.Context) (today time.Time, names map[string]bool, err error) {
	var now time.Time
	var list []string
	err = s.pool.QueryRow(ctx, `SELECT clock_timestamp(), coalesce(array_agg(c.relname::text), '{}')
		FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'attempts'::regclass`).Scan(&now, &list)
	if err != nil {
		return today, nil, fmt.Errorf("list partitions: %w", err)
	}
	names = make(map[string]bool, len(list))
	for _, name := range list {
		names[name] = true
	}
	return now.UTC().Truncate(24 * time.Hour), names, nil
}

// lockPartitions takes the lock by which partitions are made and dropped, until
// tx ends, and bounds how long tx waits for tables in use: whoever comes after
// it would wait with it.
func lockPartitions(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(partitionLock)); err != nil {
		return fmt.Errorf("lock partitions: %w", err)
	}
	_, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '5s'`)
	return err
}

func tableExists(ctx context.Context, tx pgx.Tx, name string) (bool, error) {
	var exists bool
	err := tx.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, name).Scan(&exists)
	return exists, err
}

// quoteTime writes a time as a literal: bounds of partitions take no parameters.
func quoteTime(t time.Time) string { return t.UTC().Format(`'2006-01-02 15:04:05+00'`) }

// storable returns s as PostgreSQL's text can hold it, nil for nothing.
func storable(s string) *string {
	if s == "" {
		return nil
	}
	if !isStorable(s) {
		s = strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
	}
	return &s
}

func isStorable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
