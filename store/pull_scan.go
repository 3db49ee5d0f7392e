package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"postroad/event"
)

const (
	// pullScanMax bounds the events that one handing out looks at, by their names
	// only: so far beyond the first one that is not committed others are handed out.
	pullScanMax = 20_000
	// pullScanRows is how many one query brings.
	pullScanRows = 1_000
)

// pullScan looks for what may be handed out: from the cursor on, over what is
// dealt with.
type pullScan struct {
	p            *pulling
	limit, bytes int

	out  map[int64]bool     // under a lease that is not over
	busy map[event.Key]bool // of events in other hands, or held back behind one

	settled []int64 // those of the row that position has not passed yet
	taken   []int64
	// pending are all events up to position that match and are not dealt with.
	pending []int64
	// position is up to where all was looked at; cut says that there may be more.
	position int64
	cut      bool
}

func newPullScan(p *pulling, r PullRequest) *pullScan {
	s := &pullScan{
		p: p, limit: clampLimit(r.Limit, PullEventsMax), bytes: r.Bytes, settled: p.run.Settled, position: p.run.Cursor,
		out: map[int64]bool{}, busy: map[event.Key]bool{},
	}
	for _, l := range p.leases {
		if l.over {
			continue
		}
		for _, sequence := range l.sequences {
			s.out[sequence] = true
		}
	}
	return s
}

// run looks at events until a lease is full, none is left or enough were looked at.
func (s *pullScan) run(ctx context.Context, tx pgx.Tx) error {
	for looked := 0; looked < pullScanMax; {
		s.passSettled(s.position + 1)
		rows, err := tx.Query(ctx, `
			SELECT sequence, resource_name, resource_key, coalesce(event_type, ''), octet_length(coalesce(data, '')) + octet_length(coalesce(extras, ''))
			  FROM events WHERE feed_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3`, s.p.run.FeedID, s.position, pullScanRows)
		if err != nil {
			return fmt.Errorf("look for events: %w", err)
		}
		var sequence int64
		var key event.Key
		var eventType string
		var size, n int
		_, err = pgx.ForEachRow(rows, []any{&sequence, &key.ResourceName, &key.ResourceRecordKey, &eventType, &size}, func() error {
			n++
			s.look(sequence, key, eventType, size)
			return nil
		})
		if err != nil {
			return fmt.Errorf("look for events: %w", err)
		}
		if looked += n; s.full() || n < pullScanRows {
			return nil
		}
	}
	s.cut = true
	return nil
}

func (s *pullScan) full() bool { return len(s.taken) >= s.limit || s.bytes <= 0 && len(s.taken) > 0 }

// passSettled goes over ranges that are dealt with up to those that end at a
// sequence or above it; within one it takes the position to its end.
func (s *pullScan) passSettled(sequence int64) (within bool) {
	for len(s.settled) > 0 && s.settled[1] < sequence {
		s.settled = s.settled[2:]
	}
	if within = len(s.settled) > 0 && s.settled[0] <= sequence; within {
		s.position = max(s.position, s.settled[1])
	}
	return within
}

// look takes in the next event. Once the lease is full nothing above is looked at.
func (s *pullScan) look(sequence int64, key event.Key, eventType string, size int) {
	if s.full() {
		return
	}
	if s.passSettled(sequence) {
		return
	}
	// What is in somebody's hands stays theirs, whatever the filter says by now.
	owed := s.out[sequence] || s.p.filter.Match(key.ResourceName, eventType)
	switch {
	case !owed:
	case s.out[sequence] || s.busy[key]:
		s.busy[key] = true
		s.pending = append(s.pending, sequence)
	case len(s.taken) > 0 && size > s.bytes:
		s.bytes = 0 // it begins the next lease
		return
	default:
		s.taken = append(s.taken, sequence)
		s.pending = append(s.pending, sequence)
		s.bytes -= size
	}
	s.position = sequence
}

// apply moves the position of the row as far as was looked at.
func (s *pullScan) apply(r *Run) {
	settled, last := []int64{}, r.Cursor
	for _, sequence := range s.pending {
		if sequence > last+1 {
			settled = append(settled, last+1, sequence-1)
		}
		last = sequence
	}
	if s.position > last {
		settled = append(settled, last+1, s.position)
	}
	r.Settled = append(settled, rangesAbove(r.Settled, s.position)...)
	r.Scanned = max(r.Scanned, s.position)
	r.advance()
}
