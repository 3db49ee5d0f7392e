package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// AttemptsMax is the most attempts that Attempts returns at once.
const AttemptsMax = 1000

// Attempt is what happened to one request.
type Attempt struct {
	// ID follows the order in which attempts were stored; InsertAttempts draws
	// it.
	ID         int64
	Subscriber string
	StartedAt  time.Time
	// First and Last are the sequences of the request's range; EventCount says
	// how many events it carried, 0 for a test request.
	FirstSequence int64
	LastSequence  int64
	EventCount    int
	// Attempt counts the requests for the range, from 1.
	Attempt int
	// Class is the name of the answer's class, e.g. success, asked, endpoint.
	Class string
	// Status is the HTTP status; nil: there was no status line.
	Status       *int
	Duration     time.Duration // stored in microseconds
	RequestBytes int
	// Error says what went wrong without a URL path or a secret; empty: nothing.
	Error string
	// Response is the beginning of the answer's body, at most 2 KiB.
	Response string
	// RetryAfter is the wait that the consumer asked for, in seconds, at most
	// maxRetryAfter; empty: it asked for none.
	RetryAfter string
	// Sequences are the events of a request that were not all that matched from
	// first to last; nil: they were all.
	Sequences []int64
	// Replay is the replay that the request was made for; 0: none.
	Replay int64
	// Compacted is how many older events of the same records were left out for
	// those of the request.
	Compacted int
}

// AttemptFilter selects attempts of a subscriber.
type AttemptFilter struct {
	// BeforeID returns older attempts only: those with a smaller id; 0: from the
	// newest on.
	BeforeID int64
	// FailuresOnly leaves out the 2xx.
	FailuresOnly bool
	// Since leaves out what began before it; zero: nothing.
	Since time.Time
}

// Attempts reads a subscriber's attempts, newest first, at most limit and never
// more than AttemptsMax of them. Those of a deleted subscriber with the same id
// are among them until their day is dropped.
func (s *Store) Attempts(ctx context.Context, subscriber string, filter AttemptFilter, limit int) ([]Attempt, error) {
	query := `SELECT id, subscriber, started_at, first_sequence, last_sequence, event_count, attempt, class, status,
			duration_us, request_bytes, coalesce(error, ''), coalesce(response, ''), coalesce(retry_after, ''),
			sequences, coalesce(replay, 0), coalesce(compacted, 0)
		FROM attempts WHERE subscriber = $1 AND ($2 = 0 OR id < $2)`
	if filter.FailuresOnly {
		query += ` AND (status IS NULL OR status NOT BETWEEN 200 AND 299)`
	}
	args := []any{subscriber, filter.BeforeID, clampLimit(limit, AttemptsMax)}
	if !filter.Since.IsZero() {
		query += ` AND started_at >= $4`
		args = append(args, filter.Since)
	}
	query += ` ORDER BY id DESC LIMIT $3`
	scan := func(row pgx.CollectableRow) (Attempt, error) {
		var a Attempt
		var micros int64
		err := row.Scan(&a.ID, &a.Subscriber, &a.StartedAt, &a.FirstSequence, &a.LastSequence, &a.EventCount, &a.Attempt,
			&a.Class, &a.Status, &micros, &a.RequestBytes, &a.Error, &a.Response, &a.RetryAfter,
			&a.Sequences, &a.Replay, &a.Compacted)
		a.Duration = time.Duration(micros) * time.Microsecond
		return a, err
	}
	return collect(ctx, s, "list attempts of "+subscriber, scan, query, args...)
}

// EraseExcerpts removes what consumers answered to requests that carried events
// of a record: an answer may quote what it was sent. It returns how many answers
// it removed, of the subscribers that the feed has now.
func (s *Store) EraseExcerpts(ctx context.Context, feedID int64, record event.Key) (int64, error) {
	const subscribersAtOnce = 100
	var erased int64
	for after := ""; ; {
		ids, err := collect(ctx, s, "list subscribers", pgx.RowTo[string],
			`SELECT id FROM subscribers WHERE feed_id = $1 AND id > $2 ORDER BY id LIMIT $3`, feedID, after, subscribersAtOnce)
		if err != nil {
			return erased, err
		}
		// Answers are kept of failures only, which have an index.
		tag, err := s.pool.Exec(ctx, `
			WITH carried AS MATERIALIZED (SELECT sequence FROM record_sequences($1, $2, $3) AS sequence)
			UPDATE attempts a SET response = NULL
			WHERE a.subscriber = ANY ($4) AND (a.status IS NULL OR a.status NOT BETWEEN 200 AND 299) AND a.response IS NOT NULL
				AND EXISTS (SELECT FROM carried c WHERE c.sequence BETWEEN a.first_sequence AND a.last_sequence)`,
			feedID, record.ResourceName, record.ResourceRecordKey, ids)
		if err != nil {
			return erased, fmt.Errorf("erase excerpts of answers: %w", err)
		}
		erased += tag.RowsAffected()
		if len(ids) < subscribersAtOnce {
			return erased, nil
		}
		after = ids[len(ids)-1]
	}
}
