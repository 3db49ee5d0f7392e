package activities

import (
	"context"
	"sync"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// A page that the reader hands to the run, at most.
const (
	pageEventsMax = 500
	pageBytesMax  = 1 << 20
)

// skipMin is from how many numbers on a stretch that is dealt with is jumped over
// rather than read.
const skipMin = 10_000

// missedPage is how many dead letters are read at once, of any size.
const missedPage = 100

// page is what a source found: matching events, and how far it looked.
type page struct {
	events []*event.Event
	// older says of each event how many older ones of its record were left out
	// for it; nil: none were.
	older   []int
	scanned int64
}

// source is what a run reads: the log from a position on, or what a replay
// selects of it. Next and Wait are for one goroutine, Passed and
// Erased for any.
type source interface {
	// Next returns what comes next; a position that did not move means that there
	// is nothing more for now.
	Next(ctx context.Context) (page, error)
	// Wait returns once there may be more.
	Wait(ctx context.Context) error
	// Passed returns, while Wait waits, a position up to which there is nothing more
	// than Next returned; 0: none is known.
	Passed() int64
	// Erased reports that events which were handed out may have been erased since.
	Erased() bool
	Close()
}

// logSource follows the log.
type logSource struct {
	log    *eventlog.Log
	feed   int64
	filter event.Filter
	// skip returns the end of the stretch that is dealt with and holds position.
	skip func(position int64) int64
	// compact is nil where every event is sent.
	compact *compaction

	mu        sync.Mutex
	followers []*eventlog.Follower // the last one is read; the events of the others may still be held
	position  int64
}

func newLogSource(log *eventlog.Log, feed, after int64, filter event.Filter, skip func(int64) int64) *logSource {
	after = skip(after)
	return &logSource{
		log: log, feed: feed, filter: filter, skip: skip, position: after,
		followers: []*eventlog.Follower{log.Follow(feed, after, filter)},
	}
}

func (s *logSource) current() *eventlog.Follower {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.followers[len(s.followers)-1]
}

func (s *logSource) Next(ctx context.Context) (page, error) {
	if to := s.skip(s.position); to >= s.position+skipMin {
		follower := s.log.Follow(s.feed, to, s.filter)
		s.mu.Lock()
		s.followers = append(s.followers, follower)
		s.mu.Unlock()
		s.position = to
		return page{scanned: to}, nil
	}
	if s.compact != nil {
		if err := s.compact.look(ctx, s.position); err != nil {
			return page{scanned: s.position}, err
		}
	}
	events, scanned, err := s.current().Next(ctx, pageEventsMax, pageBytesMax)
	if err != nil {
		return page{scanned: s.position}, err
	}
	s.position = scanned
	p := page{events: events, scanned: scanned}
	if s.compact != nil {
		s.compact.apply(&p)
	}
	return p, nil
}

func (s *logSource) Wait(ctx context.Context) error { return s.current().Wait(ctx) }

func (s *logSource) Passed() int64 { return s.current().Passed() }

func (s *logSource) Erased() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.followers {
		if f.Erased() {
			return true
		}
	}
	return false
}

func (s *logSource) Close() {
	for _, f := range s.followers {
		f.Close()
	}
}

// compaction leaves out the events that a newer one of their record stands for,
// while there are more than behind events ahead.
type compaction struct {
	log    *eventlog.Log
	feed   int64
	filter event.Filter
	behind int64
	most   int              // events that are looked at for newer ones of their records
	newest *eventlog.Newest // of the stretch that is read now; nil: none is
	head   int64            // of the log, as far as known
	asked  int64            // the position when the head was asked for last
}

// look prepares the stretch above position.
func (c *compaction) look(ctx context.Context, position int64) (err error) {
	if c.newest != nil && position < c.newest.Through {
		return nil
	}
	c.newest = nil
	if c.head-position <= c.behind {
		if position-c.asked < c.behind {
			return nil // one that follows the log closely does not ask for each event
		}
		c.asked = position
		if c.head, err = c.log.Head(ctx, c.feed); err != nil || c.head-position <= c.behind {
			return err
		}
	}
	c.newest, err = c.log.LookAhead(ctx, c.feed, position, c.filter, c.most)
	return err
}

// apply takes what need not be sent out of a page.
func (c *compaction) apply(p *page) {
	if c.newest == nil {
		return
	}
	kept := make([]*event.Event, 0, len(p.events))
	p.older = make([]int, 0, len(p.events))
	for _, e := range p.events {
		older, keep := 0, true
		if e.Sequence <= c.newest.Through {
			older, keep = c.newest.Keep(e.Sequence)
		}
		if keep {
			kept, p.older = append(kept, e), append(p.older, older)
		}
	}
	p.events = kept
}

// replaySource reads what a replay selects, once.
type replaySource struct{ *eventlog.Selected }

func newReplaySource(log *eventlog.Log, feed int64, replay *store.Replay, filter event.Filter) replaySource {
	return replaySource{log.Select(feed, eventlog.Selection{
		After: replay.Cursor, Through: replay.Through, Filter: filter.Within(replay.Selection.ResourceNames), Keys: replay.Selection.Keys,
	})}
}

func (s replaySource) Next(ctx context.Context) (page, error) {
	events, scanned, err := s.Selected.Next(ctx, pageEventsMax, pageBytesMax)
	return page{events: events, scanned: scanned}, err
}

// Wait waits for the end: a replay grows no longer.
func (s replaySource) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Passed knows no position: what a replay selects is not all there is.
func (s replaySource) Passed() int64 { return 0 }

// missedSource reads the dead letters that a replay has taken up.
type missedSource struct {
	*eventlog.Selected
	store      *store.Store
	subscriber string
	replay     *store.Replay
	position   int64
}

func newMissedSource(log *eventlog.Log, s *store.Store, feed int64, subscriber string, replay *store.Replay) *missedSource {
	return &missedSource{
		Selected: log.Select(feed, eventlog.Selection{}), store: s,
		subscriber: subscriber, replay: replay, position: replay.Cursor,
	}
}

func (s *missedSource) Next(ctx context.Context) (page, error) {
	if s.position >= s.replay.Through {
		return page{scanned: s.position}, nil
	}
	sequences, err := s.store.MissedSequences(ctx, s.subscriber, s.replay.ID, s.position, missedPage)
	if err != nil {
		return page{scanned: s.position}, err
	}
	if len(sequences) == 0 {
		s.position = s.replay.Through
		return page{scanned: s.position}, nil
	}
	events, err := s.Events(ctx, sequences)
	if err != nil {
		return page{scanned: s.position}, err
	}
	s.position = sequences[len(sequences)-1]
	return page{events: events, scanned: s.position}, nil
}

// Wait waits for the end, as that of a replaySource does.
func (s *missedSource) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Passed knows no position, as that of a replaySource.
func (s *missedSource) Passed() int64 { return 0 }
