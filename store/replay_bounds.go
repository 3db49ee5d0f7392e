package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

// check looks at what a request says by itself.
func (r ReplayRequest) check() error {
	bounded := r.FromSequence != nil || r.ToSequence != nil || r.FromTime != nil || r.ToTime != nil
	switch {
	case r.Missed && (bounded || r.ResourceNames != nil || r.Keys != nil):
		return &ReplayRefusedError{Reason: ReplayMissedMixed}
	case len(r.Keys) > ReplayKeysMax:
		return &ReplayRefusedError{Reason: ReplayTooManyKeys}
	case r.FromSequence != nil && r.ToSequence != nil && *r.FromSequence > *r.ToSequence:
		return &ReplayRefusedError{Reason: ReplayReversed, From: *r.FromSequence, To: *r.ToSequence}
	case r.FromTime != nil && r.ToTime != nil && r.FromTime.After(*r.ToTime):
		return &ReplayRefusedError{Reason: ReplayReversed}
	}
	return nil
}

// source is what a subscriber's events are replayed from.
type source struct {
	feed        int64
	floor, head int64
	filter      event.Filter
}

func (s *Store) sourceOf(ctx context.Context, subscriber string) (source, error) {
	var src source
	err := s.pool.QueryRow(ctx, `
		SELECT f.id, f.floor_sequence, greatest(f.floor_sequence, (SELECT max(e.sequence) FROM events e WHERE e.feed_id = f.id)),
		       coalesce(s.config -> 'filter', '{}')
		  FROM runs r JOIN subscribers s ON s.id = r.id JOIN feeds f ON f.id = r.feed_id
		 WHERE r.id = $1 AND NOT r.deleted`, subscriber).Scan(&src.feed, &src.floor, &src.head, &src.filter)
	if errors.Is(err, pgx.ErrNoRows) {
		return source{}, ErrNotFound
	}
	if err != nil {
		return source{}, fmt.Errorf("read feed of %s: %w", subscriber, err)
	}
	return src, nil
}

// bounds fixes what a request asks for: the events in (after, through].
func (s *Store) replayBounds(ctx context.Context, src source, r ReplayRequest) (after, through int64, err error) {
	from, to := src.floor+1, src.head
	below := &ReplayRefusedError{Reason: ReplayBelowFloor, Head: src.head, FirstSequence: src.floor + 1}
	if r.FromSequence != nil {
		if from = *r.FromSequence; from <= src.floor {
			return 0, 0, below
		}
	}
	if r.ToSequence != nil {
		if *r.ToSequence <= src.floor && src.floor > 0 {
			return 0, 0, below
		}
		to = *r.ToSequence
	}
	if r.FromTime != nil {
		before, removed, err := s.recordedBefore(ctx, src, *r.FromTime, false)
		if err != nil {
			return 0, 0, err
		}
		if removed { // what else was recorded since then is not known any more
			return 0, 0, below
		}
		from = max(from, before+1)
	}
	if r.ToTime != nil {
		through, removed, err := s.recordedBefore(ctx, src, *r.ToTime, true)
		if err != nil {
			return 0, 0, err
		}
		if removed {
			return 0, 0, below
		}
		to = min(to, through)
	}
	switch {
	case r.ToSequence != nil && *r.ToSequence > src.head: // cut short, it would be told from nothing
		return 0, 0, &ReplayRefusedError{Reason: ReplayToAboveHead, To: *r.ToSequence, Head: src.head, FirstSequence: src.floor + 1}
	case from > src.head:
		return 0, 0, &ReplayRefusedError{Reason: ReplayAboveHead, From: from, Head: src.head, FirstSequence: src.floor + 1}
	case from > to:
		return 0, 0, &ReplayRefusedError{Reason: ReplayEmpty, From: from, To: to, Head: src.head, FirstSequence: src.floor + 1}
	}
	return from - 1, to, nil
}

// recordedBefore returns the highest number of an event that was recorded before
// a time, or at it where at is set; the floor where there is none. Times rise with
// the numbers, so it is found by halving. removed says that the time lies before
// the first event kept, and that there were others.
func (s *Store) recordedBefore(ctx context.Context, src source, t time.Time, at bool) (sequence int64, removed bool, err error) {
	old, young := src.floor, src.head+1
	for young-old > 1 {
		middle := old + (young-old)/2
		var found int64
		var is bool
		err := s.pool.QueryRow(ctx, `
			SELECT e.sequence, e.recorded_at < $4 OR $5 AND e.recorded_at = $4
			  FROM events e WHERE e.feed_id = $1 AND e.sequence >= $2 AND e.sequence < $3 ORDER BY e.sequence LIMIT 1`,
			src.feed, middle, young, t, at).Scan(&found, &is)
		switch {
		case errors.Is(err, pgx.ErrNoRows) || err == nil && !is:
			young = middle
		case err != nil:
			return 0, false, fmt.Errorf("look for the event recorded at a time: %w", err)
		default:
			old = found
		}
	}
	if old > src.floor || src.floor == 0 {
		return old, false, nil
	}
	err = s.pool.QueryRow(ctx, `
		SELECT coalesce((SELECT e.recorded_at > $3 FROM events e WHERE e.feed_id = $1 AND e.sequence > $2 ORDER BY e.sequence LIMIT 1), false)`,
		src.feed, src.floor, t).Scan(&removed)
	if err != nil {
		return 0, false, fmt.Errorf("look for the first event kept: %w", err)
	}
	return old, removed, nil
}
