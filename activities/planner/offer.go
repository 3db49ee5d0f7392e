package planner

import (
	"math"
	"time"

	"postroad/event"
)

// Room is how many events Offer may bring; 0: the window is full.
func (p *Plan) Room() int { return max(0, p.windowMax()-p.window.live-p.Unsaved()) }

func (p *Plan) windowMax() int {
	most := max(p.windowMin, 2*p.lanes*p.batch())
	if p.looking() {
		most = max(most, p.trialWindow)
	}
	return most
}

// Offer brings the next matching events, in order, and how far the caller has
// looked: scanned is at least the last event's sequence. older says for each
// event how many older ones of its key were left out for it; nil: none. Events
// that are dealt with are passed over, those of held keys wait behind them.
func (p *Plan) Offer(events []*event.Event, older []int, scanned int64) {
	p.noMore = false
	w := &p.window
	slab := make([]entry, len(events))
	for i, e := range events {
		if e.Sequence <= w.scanned {
			continue
		}
		w.pass(e.Sequence)
		if e.Sequence <= w.scanned {
			continue
		}
		w.scanned = e.Sequence
		h := p.heldOf(e)
		if h != nil && p.heldEvents < p.cfg.HeldEventsMax {
			p.enqueue(h, e)
			p.dealt++
			p.begun = true
			w.matched, w.behind, w.top = e.Sequence, e.Sequence, e.Sequence
			w.rank++
			continue
		}
		n := &slab[i]
		n.event, n.sequence = e, e.Sequence
		if older != nil {
			n.older = older[i]
		}
		w.add(n, older != nil)
		if p.keyed {
			n.key = p.keyOf(e)
			n.key.entries++
		}
		p.resume(n)
		p.idle = false
		if h != nil {
			n.crowded = true
			p.crowded++
		}
	}
	if scanned > w.scanned {
		w.pass(scanned)
		w.scanned = max(w.scanned, scanned)
		if older != nil {
			w.behind = w.scanned
		}
	}
	w.pass(w.scanned + 1)
	p.notOffered(w.scanned)
	if w.live >= p.windowMax() {
		p.notOffered(math.MaxInt64) // else what keeps a lane might never come
	}
}

// NothingMore says that the caller has looked through all there is: what Offer
// did not bring is not there. An Offer ends it. Without it a plan that looks for
// an event to try, as it does not know who is at fault, goes on looking.
func (p *Plan) NothingMore(now time.Time) {
	p.noMore = true
	p.rest(now)
}

// SkipTo returns the end of the settled range that position, or what follows it,
// lies in, else position: a reader need not read that far.
func (p *Plan) SkipTo(position int64) int64 { return p.window.skip(position) }

func (p *Plan) keyOf(e *event.Event) *keyState {
	k := p.keys[e.Key()]
	if k == nil {
		k = &keyState{}
		p.keys[e.Key()] = k
	}
	return k
}

// resume gives an event back what an earlier run knew of it.
func (p *Plan) resume(e *entry) {
	if first, last, times := p.sent[0], p.sent[1], p.sent[2]; e.sequence == first {
		e.sentLast, e.sentTimes = last, int(times)
	}
	first := !p.begun
	p.begun = true
	if first && p.olderRow && p.firstAttempts > 0 {
		// An older binary's row.
		p.failing = []*failing{{sequence: e.sequence, attempts: p.firstAttempts, text: p.lastError}}
	}
	f := p.failingAt(e.sequence)
	switch {
	case f == nil:
		if !p.keyed {
			p.notOffered(math.MaxInt64) // one lane: only its first event can fail
		}
		return
	case first && p.firstAttempts == 0:
		p.drop(f) // a resume forgave it
		return
	}
	f.entry, e.fail = e, f
	if e.sentLast != e.sequence {
		e.sentLast, e.sentTimes = e.sequence, f.attempts
	}
	p.take(e)
}

// notOffered forgets failing events up to sequence that are not there any more.
func (p *Plan) notOffered(sequence int64) {
	for i := 0; i < len(p.failing); {
		if f := p.failing[i]; f.entry == nil && f.sequence <= sequence {
			p.drop(f)
			continue
		}
		i++
	}
}

// take marks an event, and so its key, as not to be started.
func (p *Plan) take(e *entry) {
	if !e.taken {
		e.taken = true
		if e.key != nil {
			e.key.taken++
		}
	}
}

// free gives an event back to the window.
func (p *Plan) free(e *entry) {
	if e.taken {
		e.taken = false
		if e.key != nil {
			e.key.taken--
		}
	}
}

// deal takes an event out of the window: it is settled or set aside.
func (p *Plan) deal(e *entry) {
	p.free(e)
	if e.key != nil {
		if e.key.entries--; e.key.entries == 0 {
			delete(p.keys, e.event.Key())
		}
	}
	p.window.dealt(e)
	p.dealt++
}
