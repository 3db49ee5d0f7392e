package worker

import (
	"context"
	"sync"

	"postroad/eventlog"
	"postroad/store"
)

// board is what the waker knows of parked rows. Everything in it is guarded by
// mu, which is never held over a query.
type board struct {
	mu    sync.Mutex
	rows  map[string]*row
	feeds map[int64]*feed
	// round counts reloads; a row that a reload did not bring is not parked.
	round int64
	// ready holds the feeds with work that nobody has taken up; poked tells of
	// them.
	ready []*feed
	poked chan struct{}
}

// row is one parked row.
type row struct {
	store.ParkedRow
	feed *feed
	// round is the reload during or after which it was last seen parked.
	round int64
	// from is the position from which events concern it: those up to it were
	// looked at when it was learned.
	from  int64
	state rowState
}

type rowState int

const (
	rowLearned rowState = iota // the stretch from its cursor is not matched yet
	rowIndexed                 // waits in the index for new events
	rowMatched                 // something matches; the sender has it
	rowGone                    // not parked any more
)

// feed is one feed with parked rows.
type feed struct {
	id      int64
	rows    int // learned, indexed and matched
	index   eventlog.FilterIndex[*row]
	learned []*row
	// head is the highest number that the log told of.
	head int64
	// follower reads new events for all indexed rows together, on from position:
	// up to there each of them was matched. nil: nothing is indexed.
	follower *eventlog.Follower
	position int64
	// queued says that the feed is in ready, busy that somebody works on it,
	// again that there was more to do after that work was taken up.
	queued, busy, again bool
}

func newBoard() *board {
	return &board{rows: map[string]*row{}, feeds: map[int64]*feed{}, poked: make(chan struct{}, 1)}
}

// enqueue has a feed worked on, by one worker at a time.
func (b *board) enqueue(f *feed) {
	switch {
	case f.busy:
		f.again = true
	case !f.queued:
		f.queued = true
		b.ready = append(b.ready, f)
		poke(b.poked)
	}
}

// take waits for a feed with work; nil: ctx ended. Whoever takes one calls done.
func (b *board) take(ctx context.Context) *feed {
	// Work that failed because ctx ended is put back: it must not be taken again.
	for ctx.Err() == nil {
		b.mu.Lock()
		if len(b.ready) > 0 {
			f := b.ready[0]
			b.ready[0] = nil
			b.ready = b.ready[1:]
			f.queued, f.busy, f.again = false, true, false
			if len(b.ready) > 0 {
				poke(b.poked)
			}
			b.mu.Unlock()
			return f
		}
		b.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-b.poked:
		}
	}
	return nil
}

// done ends the work on a feed, which is forgotten once it has no rows. more
// has it worked on again.
func (b *board) done(f *feed, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f.busy = false
	if f.rows == 0 {
		if f.follower != nil {
			f.follower.Close()
			f.follower = nil
		}
		delete(b.feeds, f.id)
		return
	}
	if more || f.again {
		b.enqueue(f)
	}
}

// close lets go of the log.
func (b *board) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.feeds {
		if f.follower != nil {
			f.follower.Close()
			f.follower = nil
		}
	}
}

// learn takes in a row that is parked, and reports whether it is news. Rows are
// told of out of order: a parking never replaces a later one, nor a filter a
// newer one.
func (b *board) learn(p store.ParkedRow) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := b.rows[p.ID]; old != nil {
		old.round = b.round
		if p.Generation < old.Generation || (p.Generation == old.Generation && p.Version <= old.Version) {
			return false
		}
		b.drop(old)
	}
	f := b.feeds[p.FeedID]
	if f == nil {
		f = &feed{id: p.FeedID}
		b.feeds[p.FeedID] = f
	}
	r := &row{ParkedRow: p, feed: f, round: b.round}
	b.rows[p.ID] = r
	f.rows++
	f.learned = append(f.learned, r)
	b.enqueue(f)
	return true
}

// forget takes out a row that is not parked any more.
func (b *board) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.rows[id]; r != nil {
		b.drop(r)
	}
}

func (b *board) drop(r *row) {
	if r.state == rowIndexed {
		r.feed.index.Remove(r)
	}
	r.state = rowGone
	r.feed.rows--
	delete(b.rows, r.ID)
	b.enqueue(r.feed) // perhaps the feed is of no interest any more
}

// beginReload starts a reload and returns its number.
func (b *board) beginReload() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.round++
	return b.round
}

// endReload takes out the rows that were not seen parked since round began, and
// returns them.
func (b *board) endReload(round int64) []store.ParkedRow {
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []store.ParkedRow
	for _, r := range b.rows {
		if r.round < round {
			gone = append(gone, r.ParkedRow)
			b.drop(r)
		}
	}
	return gone
}

// changed notes the new heads of feeds.
func (b *board) changed(heads map[int64]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, head := range heads {
		if f := b.feeds[id]; f != nil && head > f.head {
			f.head = head
			b.enqueue(f)
		}
	}
}

// moves returns how far the cursors of indexed rows can move.
func (b *board) moves() []store.CursorMove {
	b.mu.Lock()
	defer b.mu.Unlock()
	var moves []store.CursorMove
	for _, r := range b.rows {
		if r.state == rowIndexed && r.feed.position > r.Cursor {
			moves = append(moves, store.CursorMove{ID: r.ID, Generation: r.Generation, Version: r.Version, Cursor: r.feed.position})
		}
	}
	return moves
}

// moved notes that cursors were moved, or that the rows are not as known here,
// which the next reload brings.
func (b *board) moved(moves []store.CursorMove) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range moves {
		if r := b.rows[m.ID]; r != nil && r.Generation == m.Generation && r.Version == m.Version {
			r.Cursor = max(r.Cursor, m.Cursor)
		}
	}
}
