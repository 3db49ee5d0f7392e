package planner

import (
	"slices"
	"time"

	"postroad/event"
)

// Next returns the next request, which is in flight from now on; nil: none may
// start now. The plan may have stopped by finding that out: see Stopped.
func (p *Plan) Next(now time.Time) *Request {
	if p.Stopped() || p.trial || p.requests > 0 && (p.probe || !p.keyed) {
		return nil
	}
	r := p.choose(now)
	if r == nil {
		p.rest(now)
		p.idle = p.requests == 0
		return nil
	}
	p.start(r)
	return r
}

// choose finds what may be sent now: first what keeps a lane already, then what
// waits longest.
func (p *Plan) choose(now time.Time) *Request {
	if g := p.nextGroup(); g != nil {
		n := min(len(g.entries), max(1, g.suspects/2))
		return &Request{kind: kindGroup, group: g, entries: g.entries[:n:n], Events: eventsOf(g.entries[:n])}
	}
	for _, f := range p.failing {
		if f.entry != nil && !f.inFlight && !f.due.After(now) {
			return p.single(kindRetry, f.entry)
		}
	}
	if p.requests-p.lent+len(p.failing)+len(p.groups) < p.lanes {
		if h := p.heldReady(now); h != nil {
			r := &Request{kind: kindHeld, held: h}
			r.one[0] = h.queue[0].event
			r.Events = r.one[:]
			return r
		}
		if r := p.gather(); r != nil {
			return r
		}
	}
	if p.looking() && len(p.groups) == 0 {
		return p.seek()
	}
	return nil
}

func (p *Plan) nextGroup() *group {
	var next *group
	for _, g := range p.groups {
		if !g.inFlight && (next == nil || g.entries[0].sequence < next.entries[0].sequence) {
			next = g
		}
	}
	return next
}

func (p *Plan) single(k kind, e *entry) *Request {
	r := &Request{kind: k}
	r.one[0], r.oneEntry[0] = e.event, e
	r.Events, r.entries = r.one[:], r.oneEntry[:]
	return r
}

func eventsOf(entries []*entry) []*event.Event {
	events := make([]*event.Event, len(entries))
	for i, e := range entries {
		events[i] = e.event
	}
	return events
}

// startable says whether an event of the window waits for nothing but a lane.
func startable(e *entry) bool {
	return e.event != nil && !e.taken && !e.crowded && (e.key == nil || e.key.taken == 0)
}

// gather takes from the window what fits one request, lowest sequence first.
func (p *Plan) gather() *Request {
	limit := p.limit()
	var r *Request
	for _, e := range p.window.list[p.window.head:] {
		if !startable(e) {
			if !p.keyed && e.event != nil {
				break // one lane: nothing overtakes
			}
			continue
		}
		if r == nil {
			r = p.single(kindNew, e)
			if limit > 1 {
				most := min(limit, p.window.live)
				r.Events = append(make([]*event.Event, 0, most), e.event)
				r.entries = append(make([]*entry, 0, most), e)
			}
		} else {
			r.Events, r.entries = append(r.Events, e.event), append(r.entries, e)
		}
		if len(r.Events) == limit {
			break
		}
	}
	if r != nil && p.cfg.Fit != nil && len(r.Events) > 1 {
		n := p.cfg.Fit(r.Events, limit)
		r.Events, r.entries = r.Events[:n], r.entries[:n]
	}
	return r
}

// seek looks for the trial: the next event of a key that nothing else is known of.
func (p *Plan) seek() *Request {
	var failing []event.Key
	for _, f := range p.failing {
		if f.entry == nil {
			return nil
		}
		failing = append(failing, f.entry.event.Key())
	}
	past := 0
	for _, e := range p.window.list[p.window.head:] {
		if e.event == nil {
			continue
		}
		if past++; past > p.trialWindow {
			return nil
		}
		if !e.taken && !e.crowded && !slices.Contains(failing, e.event.Key()) {
			return p.single(kindTrial, e)
		}
	}
	return nil
}

// limit is the most events the next request may carry.
func (p *Plan) limit() int {
	switch {
	case p.probe:
		return 1
	case p.batchLimit > 0:
		return min(p.batchLimit, p.batch())
	}
	return p.batch()
}

// start puts a chosen request in flight.
func (p *Plan) start(r *Request) {
	r.epoch, r.changes, r.Replay = p.epoch, p.auto.changes, p.cfg.Replay
	p.requests++
	p.events += len(r.Events)
	switch r.kind {
	case kindHeld:
		r.held.inFlight = true
		r.Attempt, r.Replay = r.held.attempts+1, r.held.queue[0].replay
		r.NoPrevious, r.Contiguous = true, true
		return
	case kindGroup:
		r.group.inFlight = true
		p.lent++
	case kindRetry:
		r.entries[0].fail.inFlight = true
		p.lent++
	case kindTrial:
		p.trial = true
	case kindNew:
	}
	first, last := r.entries[0], r.entries[len(r.entries)-1]
	for _, e := range r.entries {
		p.take(e)
		r.Compacted += e.older
	}
	p.window.top = max(p.window.top, last.sequence)
	r.sentLast, r.sentTimes = first.sentLast, first.sentTimes
	r.Attempt = first.starting(last.sequence)
	r.Contiguous = last.rank-first.rank == int64(len(r.entries)-1)
	r.Previous = first.previous
	r.NoPrevious = p.keyed && !r.Contiguous
}

// starting counts a request for the range from the event to last and returns its
// number.
func (e *entry) starting(last int64) int {
	if e.sentLast != last {
		e.sentLast, e.sentTimes = last, 0
	}
	e.sentTimes++
	return e.sentTimes
}

// finish takes a request out of flight.
func (p *Plan) finish(r *Request) {
	p.idle = false
	p.requests--
	p.events -= len(r.Events)
	switch r.kind {
	case kindHeld:
		r.held.inFlight = false
	case kindGroup:
		r.group.inFlight = false
		p.lent--
	case kindRetry:
		r.entries[0].fail.inFlight = false
		p.lent--
	case kindTrial:
		p.trial = false
	case kindNew:
	}
}

// putBack gives events that a request did not deal with back to the window, but
// for those that keep their lane.
func (p *Plan) putBack(r *Request, rest []*entry) {
	if r.kind == kindNew || r.kind == kindTrial {
		for _, e := range rest {
			p.free(e)
		}
	}
}

// dissolve ends the bisecting of a batch.
func (p *Plan) dissolve(g *group) {
	for _, e := range g.entries {
		if e.fail == nil {
			p.free(e)
		}
	}
	p.groups = slices.DeleteFunc(p.groups, func(other *group) bool { return other == g })
}

// Return takes back a request that was not sent, as if Next had not been called.
func (p *Plan) Return(r *Request) {
	p.finish(r)
	if len(r.entries) > 0 {
		r.entries[0].sentLast, r.entries[0].sentTimes = r.sentLast, r.sentTimes
	}
	p.putBack(r, r.entries)
}

// InFlight returns how many requests are in flight, and the events in them.
func (p *Plan) InFlight() (requests, events int) { return p.requests, p.events }

// Idle reports that nothing is in flight and that the last Next found nothing to
// start, with nothing brought since.
func (p *Plan) Idle() bool { return p.idle && p.requests == 0 }

// Due returns when a failing event or a held key is due next. A time that is past
// means that what is due waits for an Offer, an OfferHeld or a commit. false:
// there is none.
func (p *Plan) Due(time.Time) (time.Time, bool) {
	var due time.Time
	if len(p.failing) > 0 {
		due = p.firstDue().due
	}
	if h := p.heldDue(); h != nil && (due.IsZero() || h.due.Before(due)) {
		due = h.due
	}
	return due, !due.IsZero()
}
