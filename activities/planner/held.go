package planner

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"postroad/event"
	"postroad/store"
)

// heldAhead is how many events of a held key are kept here, heldBytesMax how much
// of all of them; the others wait in the row store until these are delivered.
const (
	heldAhead    = 64
	heldBytesMax = 4 << 20
)

// heldKey is a key whose events wait. Its first one is sent alone, along the
// schedule, until it is accepted.
type heldKey struct {
	key      event.Key
	count    int // events that wait, as far as is known
	attempts int // requests charged to the first
	due      time.Time
	status   int
	text     string
	inFlight bool

	queue    []heldItem // the first events that wait, in order
	complete bool       // they are all
	// recent are events that came while the queue was not complete. The row store
	// may not have told of them when it was read.
	recent  []heldItem
	reading bool  // HeldWanted told of it, OfferHeld has not come
	removed int64 // version of the last change that took an event out
}

type heldItem struct {
	event   *event.Event
	replay  int64
	version int64 // of the change that brought it
}

func (p *Plan) takeUpHeld(list []store.HeldKey, now time.Time) {
	if len(list) == 0 {
		return
	}
	p.held = make(map[event.Key]*heldKey, len(list))
	for _, k := range list {
		if k.Events == 0 { // what waited was removed
			p.aside.release(k.Key)
			continue
		}
		p.held[k.Key] = &heldKey{
			key: k.Key, count: k.Events, attempts: k.Attempts, due: now.Add(k.Wait), status: k.LastStatus, text: k.LastError,
		}
	}
}

func (p *Plan) heldOf(e *event.Event) *heldKey {
	if len(p.held) == 0 {
		return nil
	}
	return p.held[e.Key()]
}

// hold sets the key of a failing event aside, with all its events in the window.
func (p *Plan) hold(f *failing) {
	key := f.entry.event.Key()
	var entries []*entry
	for _, e := range p.window.list[p.window.head:] {
		if e.event != nil && (e == f.entry || e.event.Key() == key) {
			entries = append(entries, e)
		}
	}
	switch {
	case len(p.held) >= p.cfg.HeldKeysMax:
		p.halt(f.sequence, fmt.Sprintf("event %d (%s) was refused %d times, and %d keys are held already, the most there may be",
			f.sequence, f.entry.event.ResourceName, f.attempts, p.cfg.HeldKeysMax))
		return
	case p.heldEvents+len(entries) > p.cfg.HeldEventsMax:
		p.haltFull(f.sequence)
		return
	}
	if p.held == nil {
		p.held = map[event.Key]*heldKey{}
	}
	h := &heldKey{key: key, attempts: f.attempts, due: f.due, status: f.status, text: f.text, complete: true}
	p.held[key] = h
	p.aside.keep(key)
	p.drop(f)
	p.suspects = 0
	for _, e := range entries {
		p.enqueue(h, e.event)
		p.deal(e)
	}
}

func (p *Plan) haltFull(sequence int64) {
	p.halt(sequence, fmt.Sprintf("event %d would have to wait behind a held key, but %d held events are the most there may be",
		sequence, p.cfg.HeldEventsMax))
}

// admit has events that were too many wait behind their keys, as far as there is
// room for them now, and gives back those whose key is held no longer.
func (p *Plan) admit() {
	for _, e := range slices.Clone(p.window.list[p.window.head:]) {
		if p.crowded == 0 {
			return
		}
		if e == nil || e.event == nil || !e.crowded {
			continue
		}
		h := p.heldOf(e.event)
		if h != nil && p.heldEvents >= p.cfg.HeldEventsMax {
			continue
		}
		e.crowded = false
		p.crowded--
		if h != nil {
			p.enqueue(h, e.event)
			p.deal(e)
		}
	}
}

// full halts a plan that has nothing left to do but to have more events wait
// behind held keys than may.
func (p *Plan) full(now time.Time) {
	if h := p.heldDue(); h != nil && !h.due.After(now) || p.choose(now) != nil {
		return
	}
	for _, e := range p.window.list[p.window.head:] {
		if e.event != nil && e.crowded {
			p.haltFull(e.sequence)
			return
		}
	}
}

// enqueue has an event wait behind its key, in order: a replay may bring one
// that is older than those that wait.
func (p *Plan) enqueue(h *heldKey, e *event.Event) {
	item := heldItem{event: e, replay: p.cfg.Replay, version: p.aside.next()}
	at, here := slices.BinarySearchFunc(h.queue, e.Sequence, compareItem)
	if here {
		return // it waits already
	}
	p.aside.hold(store.HeldEvent{Sequence: e.Sequence, Key: h.key, Replay: p.cfg.Replay})
	h.count++
	p.heldEvents++
	if at < len(h.queue) || h.complete && len(h.queue) < p.heldAhead && p.heldBytes < p.heldBytesMax {
		h.queue = slices.Insert(h.queue, at, item)
		p.heldBytes += e.Size()
		p.keepFirst(h, p.heldAhead)
		return
	}
	h.complete = false
	h.recent = append(h.recent, item)
}

// keepFirst lets go of what waits behind the first most events of a key: the row
// store has it, or will.
func (p *Plan) keepFirst(h *heldKey, most int) {
	if len(h.queue) <= most {
		return
	}
	for _, item := range h.queue[most:] {
		p.heldBytes -= item.event.Size()
		if item.version > p.aside.committed {
			h.recent = append(h.recent, item)
		}
	}
	clear(h.queue[most:])
	h.queue, h.complete = h.queue[:most], false
}

func compareItem(i heldItem, sequence int64) int { return cmp.Compare(i.event.Sequence, sequence) }

// heldReady is the held key whose first event is here and due, the oldest first.
func (p *Plan) heldReady(now time.Time) *heldKey {
	var ready *heldKey
	for _, h := range p.held {
		if h.inFlight || len(h.queue) == 0 || h.due.After(now) {
			continue
		}
		if ready == nil || h.queue[0].event.Sequence < ready.queue[0].event.Sequence {
			ready = h
		}
	}
	return ready
}

// heldDue is the held key that is due first and not in flight.
func (p *Plan) heldDue() *heldKey {
	var first *heldKey
	for _, h := range p.held {
		if !h.inFlight && (first == nil || h.due.Before(first.due)) {
			first = h
		}
	}
	return first
}

// HeldWanted returns a held key that is due and whose events are not here. The
// caller reads the first ones from the row store, by sequence, and calls
// OfferHeld; if it cannot, it asks again. What was delivered of the key is
// committed by then, and so is something that waits.
func (p *Plan) HeldWanted(now time.Time) (key event.Key, ok bool) {
	if p.Stopped() || p.heldReady(now) != nil { // that one goes first: what is kept here stays little
		return key, false
	}
	var wanted *heldKey
	for _, h := range p.held {
		if h.inFlight || h.complete || len(h.queue) > 0 || h.due.After(now) || h.removed > p.aside.committed {
			continue
		}
		if len(h.recent) >= h.count {
			continue // the row store does not have it yet
		}
		if wanted == nil || h.due.Before(wanted.due) || h.due.Equal(wanted.due) && before(h.key, wanted.key) {
			wanted = h
		}
	}
	if wanted == nil {
		return key, false
	}
	wanted.reading = true
	return wanted.key, true
}

func before(a, b event.Key) bool {
	if a.ResourceName != b.ResourceName {
		return a.ResourceName < b.ResourceName
	}
	return a.ResourceRecordKey < b.ResourceRecordKey
}

// OfferHeld brings the first events that wait behind a key, as the row store had
// them after HeldWanted asked, with the replays they were sent for; complete:
// there were no more.
func (p *Plan) OfferHeld(key event.Key, events []*event.Event, replays []int64, complete bool) {
	h := p.held[key]
	if h == nil || !h.reading {
		return
	}
	p.idle = false
	h.reading = false
	for i, e := range events {
		h.queue = append(h.queue, heldItem{event: e, replay: replays[i]})
	}
	// What came meanwhile belongs behind them, unless the store has more between.
	for _, item := range h.recent {
		at, here := slices.BinarySearchFunc(h.queue, item.event.Sequence, compareItem)
		if !here && (complete || at < len(h.queue)) {
			h.queue = slices.Insert(h.queue, at, item)
		}
	}
	for _, item := range h.queue {
		p.heldBytes += item.event.Size()
	}
	h.complete = complete
	if complete {
		p.heldEvents += len(h.queue) - h.count
		h.count, h.recent = len(h.queue), nil
	}
	p.pruneRecent(h)
	p.releaseEmpty(h)
	p.admit()
}

// pruneRecent lets go of what the row store tells of from now on.
func (p *Plan) pruneRecent(h *heldKey) {
	if !h.reading {
		h.recent = slices.DeleteFunc(h.recent, func(i heldItem) bool { return i.version <= p.aside.committed })
	}
}

// unhold takes an event of a key out: it was accepted. It was the first when it
// was sent; a replay may have brought so many before it that it was let go of.
func (p *Plan) unhold(h *heldKey, r *Request) {
	sequence := r.Events[0].Sequence
	if at, here := slices.BinarySearchFunc(h.queue, sequence, compareItem); here {
		h.queue = slices.Delete(h.queue, at, at+1)
		p.heldBytes -= r.Events[0].Size()
	}
	h.recent = slices.DeleteFunc(h.recent, func(i heldItem) bool { return i.event.Sequence == sequence })
	h.count--
	p.heldEvents--
	p.dealt++
	p.unheld++
	p.aside.unhold(sequence)
	h.removed = p.aside.next()
	if r.Replay != 0 {
		p.aside.redelivered(sequence)
	}
	if h.attempts > 0 {
		p.aside.keep(h.key)
	}
	h.attempts, h.due, h.status, h.text = 0, time.Time{}, 0, ""
	p.releaseEmpty(h)
	p.admit()
}

// releaseEmpty ends a key behind which nothing waits.
func (p *Plan) releaseEmpty(h *heldKey) {
	if h.complete && len(h.queue) == 0 {
		delete(p.held, h.key)
		p.aside.release(h.key)
	}
}

// refusedHeld has the first event of a held key wait for its next step.
func (p *Plan) refusedHeld(h *heldKey, refused refusal, now time.Time) {
	h.attempts++
	h.due = now.Add(max(p.step(h.attempts-1), refused.retryAfter))
	h.status, h.text = refused.status, refused.text
	p.aside.keep(h.key)
	if p.heldBytes > p.heldBytesMax {
		p.keepFirst(h, 0) // others need the room before it is due
	}
}
