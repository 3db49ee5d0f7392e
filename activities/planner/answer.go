package planner

import (
	"fmt"
	"slices"
	"time"

	"postroad/delivery"
	"postroad/event"
	"postroad/store"
)

// A consumer that keeps answering 429 or 503 with short waits is slowed down
// to the schedule from this answer in a row on.
const askedPatience = 4

// retryAfterMin is the shortest wait a Retry-After can ask for.
const retryAfterMin = time.Second

// scheduleJitter spreads the steps of the schedule by ± 10 %.
const scheduleJitter = 0.1

// Answered judges the answer to a request and returns how many events are dealt
// with by it: settled or set aside. What the consumer accepted by name
// (Postroad-Accepted-Through) counts first; the rest is judged by the status. A
// request that was ended without an answer (delivery.ClassCanceled) teaches
// nothing.
//
// An answer to a request from before the wait or the hold that is in force deals
// with its events as any other. But it never ends the wait, and is no further
// failure; only longer can it make the wait.
func (p *Plan) Answered(r *Request, a *delivery.Answer, now time.Time) (settled int) {
	before := p.dealt
	late := r.epoch != p.epoch
	p.finish(r)
	n := acceptedCount(r.Events, a)
	accepted := r.Events[:n:n]
	rest := p.accept(r, n)
	if n > 0 && !late {
		p.failures, p.failingSince = 0, time.Time{}
	}
	if a.Class != delivery.ClassSuccess && a.Class != delivery.ClassCanceled {
		p.lastError = AnswerText(a)
	}
	p.auto.answered(r, a, p.requests+1)
	p.prove(accepted, now)
	switch a.Class {
	case delivery.ClassSuccess:
		if !late {
			p.succeeded(r, len(r.Events))
		}
	case delivery.ClassGone:
		p.putBack(r, rest)
		p.disabled, p.probe = true, true
		p.epoch++
	case delivery.ClassAsked:
		p.putBack(r, rest)
		p.askedToWait(a, late, now)
	case delivery.ClassEndpoint:
		p.putBack(r, rest)
		p.endpointFailed(a, late, now)
	case delivery.ClassRecord:
		p.recordRefused(r, rest, a, late, now)
	case delivery.ClassCanceled: // no answer: nothing is learnt
		p.putBack(r, rest)
	}
	if r.group != nil && (len(r.group.entries) == 0 || r.group.suspects <= 0) {
		p.dissolve(r.group)
	}
	p.lanes = p.auto.lanes
	p.rest(now)
	return p.dealt - before
}

// acceptedCount is how many of the events are settled, from the first on.
func acceptedCount(events []*event.Event, a *delivery.Answer) int {
	if a.Class == delivery.ClassSuccess {
		return len(events)
	}
	n := 0
	for n < len(events) && events[n].Sequence <= a.AcceptedThrough {
		n++
	}
	return n
}

// accept settles the first n events of a request and returns the others.
func (p *Plan) accept(r *Request, n int) (rest []*entry) {
	if r.kind == kindHeld {
		if n > 0 {
			p.unhold(r.held, r)
		}
		return nil
	}
	if g := r.group; g != nil {
		g.entries = g.entries[n:]
		g.suspects -= n
	}
	for _, e := range r.entries[:n] {
		if e.fail != nil {
			p.drop(e.fail)
		}
		p.deliveredDead(e.sequence)
		p.deal(e)
	}
	return r.entries[n:]
}

// deliveredDead notes that a dead letter was delivered by a replay.
func (p *Plan) deliveredDead(sequence int64) {
	if p.isDead(sequence) {
		p.aside.redelivered(sequence)
	}
}

// isDead says whether an event that is replayed is a dead letter.
func (p *Plan) isDead(sequence int64) bool {
	_, dead := slices.BinarySearch(p.dead, sequence)
	return dead
}

// FromConsumer tells an answer's status from Postroad's own in what people are
// told.
const FromConsumer = " from the consumer"

// AnswerText is what people are told of an answer.
func AnswerText(a *delivery.Answer) string {
	if a.Status != 0 {
		return fmt.Sprintf("HTTP %d%s", a.Status, FromConsumer)
	}
	return a.Fault.Text
}

func retryAfter(a *delivery.Answer) time.Duration {
	if !a.RetryAfterValid {
		return 0
	}
	return a.RetryAfter
}

func (p *Plan) succeeded(r *Request, n int) {
	p.failures, p.failingSince, p.asked = 0, time.Time{}, 0
	p.probe, p.lastError = false, ""
	if r.kind == kindHeld {
		return // it says nothing of the batches
	}
	if p.suspects = max(0, p.suspects-n); p.suspects > 0 {
		// The refused event is among those that are left of the batch: growing
		// now would only send it again with more good ones.
		p.batchLimit = max(1, p.suspects/2)
		return
	}
	if p.batchLimit > 0 {
		if p.batchLimit *= 2; p.batchLimit >= p.batch() {
			p.batchLimit = 0
		}
	}
}

// askedToWait obeys Retry-After on 429 and 503: it costs no attempt. Those that
// several lanes got are one.
func (p *Plan) askedToWait(a *delivery.Answer, late bool, now time.Time) {
	d := max(retryAfter(a), retryAfterMin)
	reason := AnswerText(a)
	if a.RetryAfterCut {
		reason += fmt.Sprintf(" (Retry-After cut to %s)", p.cfg.Retry.MaxRetryAfter)
	}
	if late {
		until := now.Add(d)
		if p.wait != nil && p.wait.Until.After(until) {
			until = p.wait.Until
		}
		// Asked for is what no change of the configuration may end.
		p.wait = &Wait{Until: until, Class: store.WaitAsked, Reason: reason}
		return
	}
	p.asked++
	if p.asked >= askedPatience {
		d = max(d, p.step(p.asked-askedPatience))
	}
	p.pause(d, store.WaitAsked, reason, now)
}

// endpointFailed backs off along the schedule and charges no event.
func (p *Plan) endpointFailed(a *delivery.Answer, late bool, now time.Time) {
	if late {
		if until := now.Add(retryAfter(a)); p.wait != nil && until.After(p.wait.Until) {
			p.wait = &Wait{Until: until, Class: p.wait.Class, Reason: p.wait.Reason}
		}
		return
	}
	if p.failingSince.IsZero() {
		p.failingSince = now
	}
	p.failures++
	if failing := now.Sub(p.failingSince); failing >= p.cfg.Retry.GiveUpAfter.Std() {
		p.halt(0, fmt.Sprintf("the endpoint failed for %s without a break, last: %s", p.cfg.Retry.GiveUpAfter, AnswerText(a)))
		return
	}
	d := max(p.step(p.failures-1), retryAfter(a))
	p.pause(d, store.WaitEndpoint, AnswerText(a), now)
}

// refusal is what a record failure says of the event that it is charged to.
type refusal struct {
	status     int
	text       string
	retryAfter time.Duration
}

// recordRefused charges the event where it was alone; a batch is halved
// without a wait until it is.
func (p *Plan) recordRefused(r *Request, rest []*entry, a *delivery.Answer, late bool, now time.Time) {
	if !late {
		p.failures, p.failingSince = 0, time.Time{} // it answers: the endpoint is up
	}
	refused := refusal{a.Status, AnswerText(a), retryAfter(a)}
	switch {
	case r.kind == kindHeld:
		if acceptedCount(r.Events, a) == 0 {
			p.refusedHeld(r.held, refused, now)
		} else if !late {
			p.succeeded(r, 0)
		}
	case len(rest) == 0:
		if !late {
			p.succeeded(r, 0)
		}
	case r.kind == kindTrial:
		// It is not charged, and it proves nothing.
		p.putBack(r, rest)
		for _, f := range p.failing {
			f.trial = false
		}
	case len(rest) > 1:
		p.halve(r, rest)
	default:
		if r.group != nil {
			p.dissolveBut(r.group, rest[0])
		}
		p.suspects = 1
		p.charge(rest[0], refused, now)
	}
}

// halve goes on with a refused batch. One lane halves what follows, more lanes
// leave the others alone and bisect the batch where it is.
func (p *Plan) halve(r *Request, rest []*entry) {
	switch {
	case !p.keyed:
		p.suspects = len(rest)
		p.batchLimit = max(1, len(rest)/2)
		p.putBack(r, rest)
	case r.group != nil:
		r.group.suspects = len(rest)
	default:
		p.groups = append(p.groups, &group{entries: rest, suspects: len(rest)})
	}
}

// dissolveBut ends the bisecting: the refused event stands alone, and keeps the
// lane.
func (p *Plan) dissolveBut(g *group, refused *entry) {
	g.entries = slices.DeleteFunc(slices.Clone(g.entries), func(e *entry) bool { return e == refused })
	p.dissolve(g)
	g.entries = nil
}

// pause stops everything for that long. What keeps every lane may lengthen it:
// nothing could be sent sooner.
func (p *Plan) pause(d time.Duration, class, reason string, now time.Time) {
	until := now.Add(d)
	if len(p.failing) >= p.lanes {
		if f := p.firstDue(); f.due.After(until) {
			until = f.due
		}
	}
	p.wait = &Wait{Until: until, Class: class, Reason: reason}
	p.probe = true
	p.epoch++
}

// halt stops everything until a person resumes it; at is the event at which it
// halts, 0: at none. A wait goes on beside it.
func (p *Plan) halt(at int64, reason string) {
	if p.halted != "" {
		return
	}
	p.halted, p.haltedEvent, p.probe = reason, at, true
	p.epoch++
}

// Stopped reports that no request may be sent now: a wait or a hold.
func (p *Plan) Stopped() bool { return p.wait != nil || p.disabled || p.halted != "" }

// Wait returns the wait in force; nil: none. It does not end by itself: whoever
// has waited makes a new Plan.
func (p *Plan) Wait() *Wait { return p.wait }

// Halted returns why the subscriber halted; empty: it did not.
func (p *Plan) Halted() string { return p.halted }

// Disabled reports that the consumer wants nothing more.
func (p *Plan) Disabled() bool { return p.disabled }

// Owes reports that failures cost a wait, or will make the next one longer. A
// wait that the consumer asked for is not among these costs.
func (p *Plan) Owes() bool {
	if p.wait != nil {
		return p.wait.Class != store.WaitAsked
	}
	return p.failures > 0
}

// Forgive forgets what failures cost: they were another endpoint's.
func (p *Plan) Forgive() { p.wait, p.failures, p.failingSince = nil, 0, time.Time{} }

// step is the schedule's wait of that index, the last one repeated, jittered.
func (p *Plan) step(index int) time.Duration {
	steps := p.cfg.Retry.Schedule
	d := steps[min(index, len(steps)-1)].Std()
	return d + time.Duration(float64(d)*scheduleJitter*p.cfg.Jitter())
}
