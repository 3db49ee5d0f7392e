package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"postroad/eventlog"
)

const (
	// pageEventsMax and pageBytesMax bound the events looked at under one hold
	// of the board's lock.
	pageEventsMax = 1_000
	pageBytesMax  = 4 << 20
)

// work matches what is new in a feed: rows that were learned against the
// stretch between their cursor and the position of the index, then new events
// against the index. Events are read once, however many rows there are.
func (w *turn) work(ctx context.Context, f *feed) {
	err := w.workOn(ctx, f)
	if err != nil && ctx.Err() == nil {
		w.logger.Warn("parked rows not matched, trying again", "feed_id", f.id, "error", err)
		pause(ctx, w.config.RetryDelay)
	}
	w.board.done(f, err != nil)
}

// workOn takes up learned rows between any two pages of events: a feed that
// never rests must not keep them waiting.
func (w *turn) workOn(ctx context.Context, f *feed) error {
	for {
		if err := w.matchLearned(ctx, f); err != nil {
			return err
		}
		more, err := w.matchNew(ctx, f)
		if err != nil || !more {
			return err
		}
	}
}

// matchLearned brings learned rows into the index or, where something matches
// already, to the sender.
func (w *turn) matchLearned(ctx context.Context, f *feed) error {
	w.board.mu.Lock()
	learned, position, indexing := f.learned, f.position, f.follower != nil
	f.learned = nil
	w.board.mu.Unlock()
	if len(learned) == 0 {
		return nil
	}
	if !indexing {
		w.counters.Statements.Add(1)
		release := w.admit(ctx)
		head, err := w.log.Head(ctx, f.id)
		release()
		if err != nil {
			w.relearn(f, learned)
			return err
		}
		position = head
	}
	var (
		mu     sync.Mutex
		failed []*row
		errs   []error
		group  sync.WaitGroup
	)
	slots := make(chan struct{}, w.config.Statements) // more would only wait for each other
	for _, r := range learned {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			if err := w.matchRow(ctx, r, position); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, errs = append(failed, r), append(errs, err)
			}
		})
	}
	group.Wait()
	w.relearn(f, failed)
	w.beginFollowing(f, position)
	return errors.Join(errs...)
}

// relearn puts rows back whose matching failed.
func (w *turn) relearn(f *feed, rows []*row) {
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	f.learned = append(f.learned, rows...)
}

// beginFollowing follows the feed from position if rows were indexed there.
func (w *turn) beginFollowing(f *feed, position int64) {
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	if f.follower == nil && f.index.Len() > 0 {
		f.position = position
		f.follower = w.log.Follow(f.id, position, row{}.Filter) // the zero filter: everything
	}
}

// matchRow looks for an event that r waits for between its cursor and position.
func (w *turn) matchRow(ctx context.Context, r *row, position int64) error {
	match, err := w.firstMatch(ctx, r, position)
	if err != nil {
		return err
	}
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	switch {
	case r.state == rowGone:
	case match > 0:
		w.matched(r)
	default:
		r.state, r.from = rowIndexed, max(position, r.Cursor)
		r.feed.index.Add(r, r.Filter)
	}
	return nil
}

func (w *turn) firstMatch(ctx context.Context, r *row, upTo int64) (int64, error) {
	after := r.Cursor
	for after < upTo {
		w.counters.Statements.Add(1)
		release := w.admit(ctx)
		match, scanned, err := w.log.FirstMatchPage(ctx, r.FeedID, after, upTo, r.Filter)
		release()
		var below *eventlog.BelowFloorError
		switch {
		case errors.As(err, &below) && below.FirstSequence-1 > after:
			after = below.FirstSequence - 1 // what was removed wakes nobody
			continue
		case err != nil:
			return 0, fmt.Errorf("match parked row %s: %w", r.ID, err)
		case match > 0 || scanned == after:
			return match, nil
		}
		after = scanned
	}
	return 0, nil
}

// matched hands r to the sender. The caller holds the board's lock.
func (w *turn) matched(r *row) {
	if r.state == rowIndexed {
		r.feed.index.Remove(r)
	}
	r.state = rowMatched
	w.sender.send(r.ID, r.Generation)
}

// matchNew matches the next events against the index; more says that there are
// known to be further ones.
func (w *turn) matchNew(ctx context.Context, f *feed) (more bool, err error) {
	w.board.mu.Lock()
	follower := f.follower
	if follower != nil && f.index.Len() == 0 { // nobody would be told
		follower.Close()
		f.follower, follower = nil, nil
	}
	behind := f.head > f.position
	w.board.mu.Unlock()
	if follower == nil || !behind {
		return false, nil
	}
	if err := follower.Wait(ctx); err != nil {
		return false, fmt.Errorf("wait for events of feed %d: %w", f.id, err)
	}
	release := w.admit(ctx)
	events, scanned, err := follower.Next(ctx, pageEventsMax, pageBytesMax)
	release()
	var below *eventlog.BelowFloorError
	if errors.As(err, &below) {
		w.followAbove(f, below.FirstSequence-1)
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read events of feed %d: %w", f.id, err)
	}
	w.counters.Pages.Add(1)
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	for _, e := range events {
		rows, tried := f.index.Match(e.ResourceName, e.EventType)
		w.counters.MatchAttempts.Add(int64(tried))
		for _, r := range rows {
			if e.Sequence > r.from {
				w.matched(r)
			}
		}
	}
	f.position = max(f.position, scanned)
	return true, nil
}

// followAbove goes on above a floor that was raised past the position: what was
// removed wakes nobody.
func (w *turn) followAbove(f *feed, floor int64) {
	w.board.mu.Lock()
	defer w.board.mu.Unlock()
	f.follower.Close()
	f.position = max(f.position, floor)
	f.follower = w.log.Follow(f.id, f.position, row{}.Filter)
}
