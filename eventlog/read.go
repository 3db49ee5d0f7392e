package eventlog

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// Page is a stretch of a feed.
type Page struct {
	// Events are in order of their numbers.
	Events []event.Event
	// Next is the position to go on after: the last event's number, or the one
	// asked for where there was none.
	Next int64
	// Head is the feed's highest number.
	Head int64
	// FirstSequence is the lowest number that may still be read.
	FirstSequence int64
	// CompactedThrough: of the events up to it each record has its newest one only;
	// 0: nothing that is kept was compacted.
	CompactedThrough int64
}

// Read reads up to limit events above after, bounded in bytes too (at least one
// event always). Errors: ErrNotFound, *BelowFloorError.
func (l *Log) Read(ctx context.Context, feedID, after int64, limit int) (Page, error) {
	s, err := l.reader().stretch(ctx, stretchQuery{
		feed: feedID, after: after, rows: limit, bytes: l.config.PageBytes,
	})
	if err != nil {
		return Page{}, err
	}
	page := Page{Events: make([]event.Event, len(s.events)), Next: after, Head: s.head, FirstSequence: s.floor + 1, CompactedThrough: s.compacted}
	for i, e := range s.events {
		page.Events[i] = *e
		page.Next = e.Sequence
	}
	return page, nil
}

// ReadOne reads one event. Errors: ErrNotFound, *BelowFloorError.
func (l *Log) ReadOne(ctx context.Context, feedID, sequence int64) (event.Event, error) {
	s, err := l.reader().stretch(ctx, stretchQuery{
		feed: feedID, after: sequence - 1, upTo: sequence, rows: 1, bytes: l.config.PageBytes,
	})
	if err != nil {
		return event.Event{}, err
	}
	if len(s.events) == 0 {
		return event.Event{}, fmt.Errorf("event %d: %w", sequence, ErrNotFound)
	}
	return *s.events[0], nil
}

// Head returns the feed's highest number, from the database. Errors:
// ErrNotFound.
func (l *Log) Head(ctx context.Context, feedID int64) (int64, error) {
	var head int64
	err := l.pool.QueryRow(ctx, `
		SELECT greatest(f.floor_sequence, (SELECT max(e.sequence) FROM events e WHERE e.feed_id = f.id))
		FROM feeds f WHERE f.id = $1 AND f.deleted_at IS NULL`, feedID).Scan(&head)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("feed %d: %w", feedID, ErrNotFound)
	}
	if err != nil {
		return 0, fmt.Errorf("read head of feed %d: %w", feedID, err)
	}
	return head, nil
}

// FirstMatch looks for the first event in (after, upTo] that the filter lets
// pass, in the database and nowhere else. upTo 0 is the head. match is 0 where
// there is none; scanned is up to where all was looked at: match, or the end of
// the range. Errors: ErrNotFound, *BelowFloorError.
func (l *Log) FirstMatch(ctx context.Context, feedID, after, upTo int64, filter event.Filter) (match, scanned int64, err error) {
	scanned = after
	for {
		m, err := l.reader().first(ctx, stretchQuery{
			feed: feedID, after: scanned, upTo: upTo, filter: filter, scanRows: l.config.ScanRows,
		})
		if err != nil {
			return 0, after, err
		}
		if m.sequence != 0 || m.done {
			return m.sequence, m.scanned, nil
		}
		if upTo == 0 {
			upTo = m.head // what comes later was not asked for
		}
		scanned = m.scanned
	}
}

// FirstMatchPage is one query of FirstMatch, which looks at Config.ScanRows
// events at most: where it finds none, go on from scanned, which stays at after
// once there is no more to look at.
func (l *Log) FirstMatchPage(ctx context.Context, feedID, after, upTo int64, filter event.Filter) (match, scanned int64, err error) {
	m, err := l.reader().first(ctx, stretchQuery{
		feed: feedID, after: after, upTo: upTo, filter: filter, scanRows: l.config.ScanRows,
	})
	if err != nil {
		return 0, after, err
	}
	return m.sequence, m.scanned, nil
}

// Events reads events by their numbers, which rise: those that are still there,
// in order. All are brought, so the caller bounds how many it asks for. Where
// they are kept for long, see Follower.Events. Errors: ErrNotFound.
func (l *Log) Events(ctx context.Context, feedID int64, sequences []int64) ([]*event.Event, error) {
	var seen erasures
	return l.events(ctx, feedID, sequences, &seen)
}

func (l *Log) events(ctx context.Context, feedID int64, sequences []int64, seen *erasures) (events []*event.Event, err error) {
	for len(sequences) > 0 {
		next := sequences[:min(len(sequences), l.config.PageRows)]
		s, cut, err := l.reader().numbered(ctx, feedID, next, l.config.PageBytes)
		if err != nil {
			return nil, err
		}
		if len(s.events) > 0 {
			seen.show(s.erasures)
		}
		events = append(events, s.events...)
		if cut {
			last, _ := slices.BinarySearch(next, s.events[len(s.events)-1].Sequence)
			next = next[:last+1]
		}
		sequences = sequences[len(next):]
	}
	return events, nil
}
