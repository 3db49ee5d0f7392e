package eventlog

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// numbersMax is how many numbers of events a Selected of records holds: each
// query for more goes through all that the records have.
const numbersMax = 50_000

// Selection is a part of a feed that is gone through from its beginning to its
// end, for which new events are of no concern.
type Selection struct {
	// After and Through: the events in (After, Through]. Through is at most the
	// head.
	After, Through int64
	// Filter lets events pass.
	Filter event.Filter
	// Keys are the records whose events are wanted; nil: those of all.
	Keys []event.Key
}

// records are the selection's keys, each once, as columns; those that the filter
// refuses by their name are left out.
func (s Selection) records() (names, keys []string) {
	names, keys = []string{}, []string{}
	seen := map[event.Key]bool{}
	named := event.Filter{ResourceNames: s.Filter.ResourceNames}
	for _, k := range s.Keys {
		if seen[k] || !named.Match(k.ResourceName, "") {
			continue
		}
		seen[k] = true
		names, keys = append(names, k.ResourceName), append(keys, k.ResourceRecordKey)
	}
	return names, keys
}

// numbersSQL gives the numbers of a selection's events where it names records,
// in no order: by the index of records alone, unless event types are asked for.
func (s Selection) numbersSQL(feed, after int64) (sql string, args []any) {
	names, keys := s.records()
	types := stretchQuery{filter: event.Filter{EventTypes: s.Filter.EventTypes}}
	args, condition := types.arguments()
	args[0], args[1], args[2], args[3] = feed, after, s.Through, names
	sql = `SELECT n.sequence FROM unnest($4::text[], ` + addArgument(&args, keys) + `::text[]) AS k (name, key)
		CROSS JOIN LATERAL record_sequences($1, k.name, k.key) AS n (sequence)`
	if condition != "" {
		sql += ` CROSS JOIN LATERAL (SELECT FROM events e WHERE e.feed_id = $1 AND e.sequence = n.sequence` + condition + ` LIMIT 1) e`
	}
	return sql + ` WHERE n.sequence > $2 AND n.sequence <= $3`, args
}

// Selected goes through a selection, in order, from the database. It is for one
// goroutine at a time.
type Selected struct {
	log       *Log
	feed      *feedTail
	selection Selection
	closed    bool

	// scanned: every event up to here was handed out or is not wanted.
	scanned int64
	pending page
	// numbers are those of events of the records named that were not read yet, all
	// that there are up to known.
	numbers []int64
	known   int64

	seen erasures
}

// Select goes through a selection. It does not wait for PostgreSQL. The caller
// closes what it returns.
func (l *Log) Select(feedID int64, s Selection) *Selected {
	return &Selected{log: l, feed: l.tail.follow(feedID), selection: s, scanned: s.After, known: s.After}
}

// Next returns the next events, up to maxEvents of them and maxBytes
// (event.Event.Size) but one always, and the position up to which all was looked
// at: Through once there are no more. The position may move without events.
// The events are not to be changed. Errors: ErrNotFound, *BelowFloorError; after
// any error the position is where it was.
func (s *Selected) Next(ctx context.Context, maxEvents, maxBytes int) (events []*event.Event, scanned int64, err error) {
	if len(s.pending.events) > 0 && s.feed.erasedSince(s.pending.erasures) {
		s.pending.events, s.numbers, s.known = nil, nil, s.scanned // read again
	}
	if len(s.pending.events) == 0 {
		if s.scanned >= s.selection.Through {
			return nil, s.selection.Through, nil
		}
		read := s.stretch
		if s.selection.Keys != nil {
			read = s.records
		}
		rows, bytes := s.log.pageBounds(maxEvents, maxBytes)
		if err := read(ctx, rows, bytes); err != nil {
			return nil, s.scanned, err
		}
	}
	events, s.scanned = s.pending.take(s.scanned, maxEvents, maxBytes, &s.seen)
	return events, s.scanned, nil
}

// stretch reads the next page of a selection of all records.
func (s *Selected) stretch(ctx context.Context, rows, bytes int) error {
	found, err := s.log.reader().stretch(ctx, stretchQuery{
		feed: s.feed.id, after: s.scanned, upTo: s.selection.Through, filter: s.selection.Filter,
		rows: rows, bytes: bytes, scanRows: s.log.config.ScanRows,
	})
	if err != nil {
		return err
	}
	s.pending = page{found.events, found.scanned, found.erasures}
	return nil
}

// records reads the next page of a selection of some records.
func (s *Selected) records(ctx context.Context, rows, bytes int) error {
	if err := s.findNumbers(ctx); err != nil {
		return err
	}
	next := s.numbers[:min(rows, len(s.numbers))]
	found, cut, err := s.log.reader().numbered(ctx, s.feed.id, next, bytes)
	if err != nil {
		return err
	}
	if s.scanned < found.floor {
		return &BelowFloorError{found.floor + 1}
	}
	if cut {
		last, _ := slices.BinarySearch(next, found.events[len(found.events)-1].Sequence)
		next = next[:last+1]
	}
	s.numbers = s.numbers[len(next):]
	scanned := s.known
	if len(s.numbers) > 0 {
		scanned = next[len(next)-1]
	}
	s.pending = page{found.events, scanned, found.erasures}
	return nil
}

// findNumbers finds the next events of the records, where those found before are
// used up.
func (s *Selected) findNumbers(ctx context.Context) error {
	if len(s.numbers) > 0 || s.known >= s.selection.Through {
		return nil
	}
	sql, args := s.selection.numbersSQL(s.feed.id, s.known)
	rows, _ := s.log.pool.Query(ctx, sql+` ORDER BY 1 LIMIT `+addArgument(&args, numbersMax), args...)
	numbers, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return fmt.Errorf("look for events of records in feed %d: %w", s.feed.id, err)
	}
	s.numbers, s.known = numbers, s.selection.Through
	if len(numbers) == numbersMax {
		s.known = numbers[numbersMax-1]
	}
	return nil
}

// Events is Log.Events for the selection's feed; Erased speaks of what it
// returned as well. The position stays where it is.
func (s *Selected) Events(ctx context.Context, sequences []int64) ([]*event.Event, error) {
	return s.log.events(ctx, s.feed.id, sequences, &s.seen)
}

// Erased reports that some of the events that Next returned may have been erased
// since, as Follower.Erased does.
func (s *Selected) Erased() bool {
	seen := s.seen.Load()
	return seen != 0 && s.feed.erasedSince(seen-1)
}

// Close lets go of the feed. It must not run beside Next.
func (s *Selected) Close() {
	if !s.closed {
		s.closed = true
		s.log.tail.unfollow(s.feed)
	}
}
