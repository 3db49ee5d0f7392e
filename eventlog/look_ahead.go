package eventlog

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// Newest says of a stretch of a feed which events are the newest of their record
// in it. It may be asked by several goroutines.
type Newest struct {
	// Through is where the stretch ends.
	Through int64

	after int64
	// older is how many older ones each of the newest stands for.
	older map[int64]int32
}

// Keep reports whether an event of the stretch is the newest of its record in it,
// and for how many older ones that the filter lets pass it stands there. What lies
// outside the stretch is kept, and stands for none.
func (n *Newest) Keep(sequence int64) (older int, ok bool) {
	if sequence <= n.after || sequence > n.Through {
		return 0, true
	}
	count, ok := n.older[sequence]
	return int(count), ok
}

// recordHash stands for a record: that of another one is the same in no log that
// can be.
type recordHash [16]byte

func hashRecord(name, key string) recordHash {
	sum := sha256.Sum256([]byte(name + "\x00" + key)) // neither holds a NUL
	return recordHash(sum[:16])
}

// LookAhead looks at up to most events above after, by their names only, and
// remembers which are the newest of their records among those that the filter
// lets pass. It holds some 50 bytes for each record. Errors: ErrNotFound,
// *BelowFloorError.
func (l *Log) LookAhead(ctx context.Context, feedID, after int64, filter event.Filter, most int) (*Newest, error) {
	type newest struct {
		sequence int64
		older    int32
	}
	records := map[recordHash]newest{}
	n := &Newest{Through: after, after: after}
	for left := most; left > 0; {
		rows := min(left, l.config.ScanRows)
		looked, err := l.names(ctx, feedID, n.Through, rows, func(sequence int64, name, key, eventType string) {
			n.Through = sequence
			if !filter.Match(name, eventType) {
				return
			}
			hash := hashRecord(name, key)
			r, known := records[hash]
			if r.sequence = sequence; known {
				r.older++
			}
			records[hash] = r
		})
		if err != nil {
			return nil, err
		}
		if left -= looked; looked < rows {
			break
		}
	}
	n.older = make(map[int64]int32, len(records))
	for _, r := range records {
		n.older[r.sequence] = r.older
	}
	return n, nil
}

// names calls see for up to most events above after, in order, and returns how
// many there were.
func (l *Log) names(ctx context.Context, feed, after int64, most int, see func(sequence int64, name, key, eventType string)) (looked int, err error) {
	rows, _ := l.pool.Query(ctx, `WITH b AS (`+boundsSQL+`)
		SELECT b.floor, coalesce(e.sequence, 0), coalesce(e.resource_name, ''), coalesce(e.resource_key, ''), coalesce(e.event_type, '')
		FROM b LEFT JOIN LATERAL (
			SELECT e.sequence, e.resource_name, e.resource_key, e.event_type FROM events e
			WHERE e.feed_id = $1 AND e.sequence > $2 ORDER BY e.sequence LIMIT $3) e ON true ORDER BY e.sequence`, feed, after, most)
	var floor, sequence int64
	var name, key, eventType string
	found := false
	_, err = pgx.ForEachRow(rows, []any{&floor, &sequence, &name, &key, &eventType}, func() error {
		if found = true; after < floor {
			return &BelowFloorError{floor + 1}
		}
		if sequence != 0 { // else it is the row that carries the floor alone
			looked++
			see(sequence, name, key, eventType)
		}
		return nil
	})
	var below *BelowFloorError
	switch {
	case errors.As(err, &below):
		return 0, below
	case err != nil:
		return 0, fmt.Errorf("look ahead in feed %d: %w", feed, err)
	case !found:
		return 0, fmt.Errorf("feed %d: %w", feed, ErrNotFound)
	}
	return looked, nil
}
