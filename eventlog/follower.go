package eventlog

import (
	"context"
	"sync/atomic"

	"postroad/event"
)

// everything is the filter that lets every event pass.
var everything = event.Filter{}

const (
	// A follower behind the ring reads at least this much at once, whatever its
	// caller asks for, and keeps what it does not hand out yet.
	pageRowsMin  = 100
	pageBytesMin = 256 << 10
)

// Follower goes through a feed, in order, event by event that its filter lets
// pass: from memory near the head, from the database behind it. It is for one
// goroutine at a time.
type Follower struct {
	log    *Log
	feed   *feedTail
	filter event.Filter
	wake   chan struct{} // of capacity 1
	closed bool

	// scanned: every event up to here was handed out or does not pass. While
	// the follower waits it is guarded by feed.mu, and so is waiting.
	scanned int64
	waiting bool

	pending page
	seen    erasures
}

// page is what was read from the database and not handed out yet.
type page struct {
	events []*event.Event
	// scanned: once the events are handed out, everything up to here was looked at.
	scanned int64
	// erasures is how many of the feed's erasures the events show.
	erasures int64
}

// take hands out the next events, within the bounds but one always, and returns
// the position after them; position is the one before.
func (p *page) take(position int64, maxEvents, maxBytes int, seen *erasures) (events []*event.Event, scanned int64) {
	n, bytes := 0, 0
	for n < len(p.events) && n < maxEvents {
		bytes += p.events[n].Size()
		if n > 0 && bytes > maxBytes {
			break
		}
		n++
	}
	events, p.events = p.events[:n:n], p.events[n:]
	if n > 0 {
		seen.show(p.erasures)
		position = events[n-1].Sequence
	}
	if len(p.events) == 0 {
		p.events, position = nil, p.scanned
	}
	return events, position
}

// erasures is the lowest number of erasures that events handed out show, plus
// one; 0: nothing was handed out.
type erasures struct{ atomic.Int64 }

func (e *erasures) show(count int64) {
	if was := e.Load(); was == 0 || count+1 < was {
		e.Store(count + 1)
	}
}

// Erased reports that some of the events that Next returned may have been erased
// since: the caller forgets those it still holds and goes on with a follower
// made anew. Unlike the other methods it may be called beside any of them.
func (f *Follower) Erased() bool {
	seen := f.seen.Load()
	return seen != 0 && f.feed.erasedSince(seen-1)
}

// Follow goes through a feed from the first event above after. It does not wait
// for PostgreSQL. The caller closes the follower.
func (l *Log) Follow(feedID, after int64, filter event.Filter) *Follower {
	return &Follower{
		log: l, feed: l.tail.follow(feedID), filter: filter, wake: make(chan struct{}, 1), scanned: after,
	}
}

// Next returns the next events that pass the filter, up to maxEvents of them and
// maxBytes (event.Event.Size) but one always, and the position up to which all
// was looked at; the position may move without events. It never waits for new
// events, at most for one database query. The events are shared: do not change
// them. Errors: ErrNotFound, *BelowFloorError; after any error the position is
// where it was.
func (f *Follower) Next(ctx context.Context, maxEvents, maxBytes int) (events []*event.Event, scanned int64, err error) {
	if len(f.pending.events) > 0 && f.feed.erasedSince(f.pending.erasures) {
		f.pending.events = nil // read again
	}
	if len(f.pending.events) == 0 {
		events, through, ok := f.feed.collect(f.scanned, f.filter, maxEvents, maxBytes, &f.seen)
		if ok {
			f.scanned = through
			return events, f.scanned, nil
		}
		if err := f.page(ctx, maxEvents, maxBytes); err != nil {
			return nil, f.scanned, err
		}
	}
	events, f.scanned = f.pending.take(f.scanned, maxEvents, maxBytes, &f.seen)
	return events, f.scanned, nil
}

func (f *Follower) page(ctx context.Context, maxEvents, maxBytes int) error {
	q := stretchQuery{feed: f.feed.id, after: f.scanned, filter: f.filter, scanRows: f.log.config.ScanRows}
	q.rows, q.bytes = f.log.pageBounds(maxEvents, maxBytes)
	f.log.reads.behind.Inc()
	s, err := f.log.reader().stretch(ctx, q)
	if err != nil {
		return err
	}
	f.pending = page{s.events, s.scanned, s.erasures}
	return nil
}

// Events is Log.Events for the follower's feed; Erased speaks of what it returned
// as well. The position stays where it is.
func (f *Follower) Events(ctx context.Context, sequences []int64) ([]*event.Event, error) {
	return f.log.events(ctx, f.feed.id, sequences, &f.seen)
}

// pageBounds is how much is read at once for a caller that asks for so much.
func (l *Log) pageBounds(maxEvents, maxBytes int) (rows, bytes int) {
	return min(max(maxEvents, pageRowsMin), l.config.PageRows), min(max(maxBytes, pageBytesMin), l.config.PageBytes)
}

// Wait returns once there is something beyond the position, which moves along
// meanwhile over events that do not pass the filter: the next call of Next says
// where it is. Errors: ctx's, ErrClosed.
func (f *Follower) Wait(ctx context.Context) error {
	if len(f.pending.events) > 0 || !f.enlist() {
		return nil
	}
	select {
	case <-f.wake:
		return nil
	case <-ctx.Done():
		return f.withdraw(ctx.Err())
	case <-f.log.tail.closed:
		return f.withdraw(ErrClosed)
	}
}

// Passed returns a position up to which there is nothing more that passes the
// filter: that of a follower that waits, which moves along. 0: it does not wait.
// It may be called beside any method.
func (f *Follower) Passed() int64 {
	t := f.feed
	t.mu.Lock()
	defer t.mu.Unlock()
	if !f.waiting || !t.begun {
		return 0
	}
	return max(f.scanned, t.hi)
}

// enlist makes the follower wait, unless there is something to look at.
func (f *Follower) enlist() bool {
	t := f.feed
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.begun && f.scanned < t.hi {
		return false
	}
	f.waiting = true
	if t.begun {
		t.waiting.Add(f, f.filter)
		return true
	}
	if t.early == nil {
		t.early = map[*Follower]struct{}{}
	}
	t.early[f] = struct{}{}
	return true
}

// withdraw ends the wait with reason, or with nil where it was over already.
func (f *Follower) withdraw(reason error) error {
	t := f.feed
	t.mu.Lock()
	defer t.mu.Unlock()
	if !f.waiting {
		<-f.wake
		return nil
	}
	f.waiting = false
	delete(t.early, f)
	t.waiting.Remove(f)
	if t.begun {
		f.scanned = max(f.scanned, t.hi)
	}
	return reason
}

// rouse ends the wait; the caller holds feed.mu and takes the follower off its
// list.
func (f *Follower) rouse() {
	f.waiting = false
	f.wake <- struct{}{}
}

// Close lets go of the feed. It must not run beside Next or Wait.
func (f *Follower) Close() {
	if !f.closed {
		f.closed = true
		f.log.tail.unfollow(f.feed)
	}
}
