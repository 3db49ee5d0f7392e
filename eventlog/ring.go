package eventlog

import (
	"container/list"
	"sort"
	"sync"
	"sync/atomic"

	"postroad/event"
)

// feedTail is the newest stretch of a feed that somebody follows.
type feedTail struct {
	id        int64
	followers int // guarded by tail.mu
	gone      atomic.Bool

	mu sync.Mutex
	// begun says that lo and hi are known.
	begun bool
	// events are all there are in (lo, hi]. head is the highest number known to
	// be committed.
	lo, hi, head int64
	events       []*event.Event
	bytes        int
	// erasures counts the erasures in the feed that events show already.
	erasures int64
	// waiting are those that looked at everything up to hi; early those that
	// came before begin.
	waiting FilterIndex[*Follower]
	early   map[*Follower]struct{}
}

// begin gives the stretch its place: empty, at the head.
func (f *feedTail) begin(m mark) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.begun {
		return
	}
	f.begun = true
	f.erasures = m.erasures
	head := m.head
	f.lo, f.hi, f.head = head, head, head
	for w := range f.early {
		if w.scanned < head {
			w.rouse()
		} else {
			f.waiting.Add(w, w.filter)
		}
	}
	f.early = nil
}

// mark notes the floor and the erasures, and returns how many bytes that freed.
// Events up to the floor are forgotten, so that memory serves no more than the
// database does. A floor above the stretch means that events which were never
// brought here are gone: nobody may go on as if there had been none, so those
// who wait are sent to the database, which tells them.
func (f *feedTail) mark(floor, erasures int64) (freed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.begun {
		return 0
	}
	n := sort.Search(len(f.events), func(i int) bool { return f.events[i].Sequence > floor })
	if erasures > f.erasures {
		f.erasures = erasures
		n = len(f.events) // the rows themselves have changed
	}
	freed = f.forget(n)
	if floor <= f.hi {
		return freed
	}
	for w := range f.waiting.All() {
		f.waiting.Remove(w)
		w.scanned = max(w.scanned, f.hi)
		w.rouse()
	}
	f.lo, f.hi, f.head = floor, floor, max(f.head, floor)
	return freed
}

// erasedSince reports whether the feed is known to have had more erasures.
func (f *feedTail) erasedSince(count int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.begun && f.erasures > count
}

// forget drops the n oldest events and returns how many bytes that freed. The
// caller holds mu.
func (f *feedTail) forget(n int) (freed int) {
	for i, e := range f.events[:n] {
		freed += e.Size()
		f.lo = e.Sequence
		f.events[i] = nil
	}
	f.events = f.events[n:]
	f.bytes -= freed
	if len(f.events) == 0 {
		f.lo, f.events = f.hi, nil
	}
	return freed
}

// grow notes the head and says whether there is something to read on to.
func (f *feedTail) grow(head int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head = max(f.head, head)
	return f.begun && f.head > f.hi
}

// extend appends events that follow hi and wakes those who wait for one of
// them; complete says that there were no more up to head. It returns by how
// much the stretch grew.
func (f *feedTail) extend(events []*event.Event, complete bool) (bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		hits, _ := f.waiting.Match(e.ResourceName, e.EventType)
		for _, w := range hits {
			if e.Sequence > w.scanned {
				f.waiting.Remove(w)
				w.scanned = max(w.scanned, f.hi)
				w.rouse()
			}
		}
		f.hi = e.Sequence
		f.events = append(f.events, e)
		bytes += e.Size()
	}
	if complete {
		f.hi = max(f.hi, f.head)
	}
	f.bytes += bytes
	return bytes
}

// trim drops the oldest events until the bounds hold, and returns how many
// bytes that freed.
func (f *feedTail) trim(eventsMax, bytesMax int) (freed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, bytes := 0, f.bytes
	for n < len(f.events) && (len(f.events)-n > eventsMax || bytes > bytesMax) {
		bytes -= f.events[n].Size()
		n++
	}
	return f.forget(n)
}

// collect returns the events above scanned that the filter lets pass, within
// the bounds, and up to where it looked; ok is false where the stretch does not
// reach back to scanned. seen lowers to the erasures that the events show.
func (f *feedTail) collect(scanned int64, filter event.Filter, eventsMax, bytesMax int, seen *erasures) (events []*event.Event, through int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if len(events) > 0 {
			seen.show(f.erasures)
		}
	}()
	if !f.begun || scanned < f.lo {
		return nil, scanned, false
	}
	bytes := 0
	first := sort.Search(len(f.events), func(i int) bool { return f.events[i].Sequence > scanned })
	for _, e := range f.events[first:] {
		if filter.Match(e.ResourceName, e.EventType) {
			if len(events) == eventsMax || len(events) > 0 && bytes+e.Size() > bytesMax {
				return events, scanned, true
			}
			events = append(events, e)
			bytes += e.Size()
		}
		scanned = e.Sequence
	}
	return events, max(scanned, f.hi), true
}

// rings bounds what all stretches hold together: those that grew least recently
// are emptied first.
type rings struct {
	eventsMax, bytesMax, totalMax int

	mu    sync.Mutex
	total int
	order list.List // of *feedTail, the one that grew last at the back
	place map[*feedTail]*list.Element
}

func newRings(config Config) *rings {
	return &rings{
		eventsMax: config.RingEvents, bytesMax: config.RingBytes, totalMax: config.RingBytesTotal,
		place: map[*feedTail]*list.Element{},
	}
}

// add extends a stretch and keeps all within the bounds.
func (r *rings) add(f *feedTail, events []*event.Event, complete bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.gone.Load() {
		return
	}
	r.total += f.extend(events, complete)
	r.total -= f.trim(r.eventsMax, r.bytesMax)
	if at := r.place[f]; at != nil {
		r.order.MoveToBack(at)
	} else {
		r.place[f] = r.order.PushBack(f)
	}
	for r.total > r.totalMax && r.order.Len() > 0 {
		r.empty(r.order.Front().Value.(*feedTail))
	}
}

// mark notes a feed's floor and erasures.
func (r *rings) mark(f *feedTail, floor, erasures int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total -= f.mark(floor, erasures)
}

// drop forgets a stretch that nobody follows.
func (r *rings) drop(f *feedTail) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.place[f] != nil {
		r.empty(f)
	}
}

func (r *rings) empty(f *feedTail) {
	r.total -= f.trim(0, 0)
	r.order.Remove(r.place[f])
	delete(r.place, f)
}
