package planner

import (
	"slices"

	"postroad/event"
)

// The window holds that many matching events that are not dealt with, or twice
// what all lanes together can carry, whichever is more.
const windowMin = 500

// trialWindow is how far a plan looks for an event of another key that shows
// whether the endpoint or an event is at fault.
const trialWindow = 1000

// entry is a matching event that was offered.
type entry struct {
	event    *event.Event // nil: it is dealt with
	sequence int64
	key      *keyState // nil: one lane, keys are not told apart
	fail     *failing  // nil: no request was charged to it
	// previous is the matching event before it; behind is up to where everything
	// between the two is dealt with: there, unless older events were left out.
	previous, behind int64
	rank             int64 // neighbours' ranks follow each other
	older            int   // events of its key that were left out for it
	size             int   // in memory, in bytes
	// sentLast and sentTimes count the requests for the range from it to there.
	sentLast  int64
	sentTimes int
	taken     bool // in flight, failing, or of a batch that is being bisected
	crowded   bool // it has to wait behind a held key, and no more events may
}

// keyState counts the events of one key in the window.
type keyState struct {
	entries, taken int
}

// window is what was offered and is not dealt with, and so the position: what is
// not in it, up to scanned, is dealt with.
type window struct {
	list    []*entry // in order; those dealt with are left in it for a while
	head    int      // the first that is not dealt with, or the end
	live    int      // those that are not dealt with
	bytes   int      // what these hold in memory
	scanned int64
	matched int64   // the last that matched, up to scanned
	behind  int64   // up to where everything behind the last entry is dealt with
	rank    int64   // of the last entry
	top     int64   // the last event that is dealt with, or was sent
	ranges  []int64 // what was dealt with before this plan, above scanned
}

// skip returns the end of the range that position, or what follows it, lies in.
func (w *window) skip(position int64) int64 {
	for i := 0; i < len(w.ranges) && w.ranges[i] <= position+1; i += 2 {
		position = max(position, w.ranges[i+1])
	}
	return position
}

// pass moves over what was dealt with before this plan, up to sequence. What
// matched before is not known to be next to what follows.
func (w *window) pass(sequence int64) {
	n := 0
	for ; n < len(w.ranges) && w.ranges[n] <= sequence; n += 2 {
		end := w.ranges[n+1]
		w.scanned, w.matched, w.behind, w.top = max(w.scanned, end), max(w.matched, end), max(w.behind, end), max(w.top, end)
		w.rank++
	}
	w.ranges = w.ranges[n:]
}

// add appends the next event. left: older events may have been left out before it.
func (w *window) add(e *entry, left bool) {
	e.previous, e.behind = w.matched, w.behind
	w.rank++
	if left {
		e.behind = e.sequence - 1
		w.rank++
	}
	e.rank = w.rank
	w.matched, w.behind = e.sequence, e.sequence
	w.list = append(w.list, e)
	w.live++
	e.size = e.event.Size()
	w.bytes += e.size
}

// dealt takes an event out.
func (w *window) dealt(e *entry) {
	e.event = nil
	w.live--
	w.bytes -= e.size
	w.top = max(w.top, e.sequence)
	for w.head < len(w.list) && w.list[w.head].event == nil {
		w.list[w.head] = nil
		w.head++
	}
	switch {
	case w.live == 0:
		w.list, w.head = w.list[:0], 0
	case len(w.list) > 2*w.live+64:
		kept := w.list[:0]
		for _, e := range w.list[w.head:] {
			if e.event != nil {
				kept = append(kept, e)
			}
		}
		clear(w.list[len(kept):])
		w.list, w.head = kept, 0
	}
}

// first is the first event that is not dealt with; nil: there is none.
func (w *window) first() *entry {
	if w.live == 0 {
		return nil
	}
	return w.list[w.head]
}

// position is the stream's, but for what fails. Ranges are told only as far as
// something above the first event that is not dealt with is, or was sent: what was
// left out before that must not come after it.
func (w *window) position() Stream {
	first := w.first()
	if first == nil {
		s := Stream{Cursor: w.scanned, Scanned: w.scanned, Previous: w.matched}
		if len(w.ranges) > 0 {
			s.Settled, s.Scanned = slices.Clone(w.ranges), w.ranges[len(w.ranges)-1]
		}
		return s
	}
	s := Stream{Cursor: first.sequence - 1, Scanned: w.scanned, Previous: first.previous}
	last := first.sequence
	for _, e := range w.list[w.head+1:] {
		if last >= w.top {
			break
		}
		if e.event == nil {
			continue
		}
		if e.behind > last {
			s.Settled = append(s.Settled, last+1, e.behind)
		}
		last = e.sequence
	}
	if w.behind > last && w.top > last {
		s.Settled = append(s.Settled, last+1, w.behind)
	}
	if len(w.ranges) > 0 {
		s.Settled = append(s.Settled, w.ranges...)
		s.Scanned = max(s.Scanned, w.ranges[len(w.ranges)-1])
	}
	return s
}
