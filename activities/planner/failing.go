package planner

import (
	"fmt"
	"slices"
	"time"

	"postroad/event"
	"postroad/store"
)

// failing is an event that the consumer refused while it was alone. It keeps its
// lane until it is settled or set aside.
type failing struct {
	sequence int64
	entry    *entry // nil: an earlier run's, not offered yet
	attempts int    // requests charged
	due      time.Time
	proven   bool // an event of another key was accepted since it failed first
	// trial says that its attempts are used up, and that nothing was tried since
	// to learn who is at fault.
	trial    bool
	inFlight bool
	status   int
	text     string // the last answer
}

// group is a refused batch that is being bisected. It keeps its lane, and its
// keys stay taken, until the refused event stands alone.
type group struct {
	entries  []*entry
	suspects int // of them, from the first on, one is known to be refused
	inFlight bool
}

// takeUpFailing goes on with what an earlier run was refused. Where there are
// fewer lanes now, only the first ones keep what they were charged.
func (p *Plan) takeUpFailing(list []store.FailingEvent, now time.Time) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b store.FailingEvent) int { return int(a.Sequence - b.Sequence) })
	for _, f := range list {
		if len(p.failing) == p.lanes {
			break
		}
		if f.Sequence <= p.window.scanned || p.window.skip(f.Sequence-1) != f.Sequence-1 {
			continue
		}
		p.failing = append(p.failing, &failing{
			sequence: f.Sequence, attempts: f.Attempts, due: now.Add(f.Wait), proven: f.Proven,
			// After a wait it is asked itself before anything is tried for it.
			trial: p.exhausted(f.Attempts) && !f.Proven && f.Wait > 0 && !p.probe, text: p.lastError,
		})
	}
	if len(p.failing) == p.lanes && p.probe {
		// The wait that every lane's failing led to is over, or was ended.
		p.firstDue().due = now
	}
}

// exhausted says whether so many attempts are all that an event gets before it
// is set aside.
func (p *Plan) exhausted(attempts int) bool {
	return attempts >= p.cfg.Retry.EventAttempts && p.cfg.OnExhausted != event.OnExhaustedHalt && p.cfg.OnExhausted != ""
}

func (p *Plan) failingAt(sequence int64) *failing {
	for _, f := range p.failing {
		if f.sequence == sequence {
			return f
		}
	}
	return nil
}

// firstDue is the failing event that is due first.
func (p *Plan) firstDue() *failing {
	return slices.MinFunc(p.failing, func(a, b *failing) int { return a.due.Compare(b.due) })
}

// drop forgets what an event was charged.
func (p *Plan) drop(f *failing) {
	if f.entry != nil {
		f.entry.fail = nil
		p.free(f.entry)
	}
	p.failing = slices.DeleteFunc(p.failing, func(other *failing) bool { return other == f })
}

// charge counts a refusal of an event that was alone.
func (p *Plan) charge(e *entry, refused refusal, now time.Time) {
	f := e.fail
	if f == nil {
		f = &failing{sequence: e.sequence, entry: e}
		e.fail = f
		at, _ := slices.BinarySearchFunc(p.failing, e.sequence, func(f *failing, n int64) int { return int(f.sequence - n) })
		p.failing = slices.Insert(p.failing, at, f)
	}
	p.take(e)
	f.inFlight, f.status, f.text = false, refused.status, refused.text
	f.attempts++
	f.due = now.Add(max(p.step(f.attempts-1), refused.retryAfter))
	switch {
	case f.attempts < p.cfg.Retry.EventAttempts:
	case !p.exhausted(f.attempts):
		p.halt(e.sequence, fmt.Sprintf("event %d (%s) was refused %d times, last answer %s",
			e.sequence, e.event.ResourceName, f.attempts, f.text))
	case f.proven:
		p.setAside(f)
	case p.isDead(e.sequence):
		p.bury(f) // given up before: it loses nothing, and a replay may hold no other key
	default:
		f.trial = true
	}
}

// prove notes that events were accepted: of whatever is refused with another
// key the endpoint is not at fault, and what has just used up its attempts is set
// aside. What was refused before a wait may have been refused as all else was:
// it is sent once more, at once.
func (p *Plan) prove(accepted []*event.Event, now time.Time) {
	for _, f := range slices.Clone(p.failing) {
		if f.entry == nil || f.proven {
			continue
		}
		key := f.entry.event.Key()
		if !slices.ContainsFunc(accepted, func(e *event.Event) bool { return e.Key() != key }) {
			continue
		}
		fresh := f.trial
		f.proven, f.trial = true, false
		switch {
		case f.inFlight || !p.exhausted(f.attempts):
		case fresh:
			p.setAside(f)
		default:
			f.due = now
		}
	}
}

// setAside ends a failing event: it becomes a dead letter, or its key is held.
func (p *Plan) setAside(f *failing) {
	if p.cfg.OnExhausted == event.OnExhaustedHold {
		p.hold(f)
		return
	}
	p.bury(f)
}

// bury makes a dead letter of a failing event.
func (p *Plan) bury(f *failing) {
	e := f.entry
	p.aside.bury(store.DeadLetter{
		Sequence: e.sequence, Key: e.event.Key(), Reason: store.DeadExhausted,
		Attempts: f.attempts, LastStatus: f.status, LastError: f.text,
	})
	p.drop(f)
	p.deal(e)
	p.suspects = 0
}

// looking says that nothing can be started and that an event of another key is
// sought, to learn whether the endpoint or the event is at fault.
func (p *Plan) looking() bool {
	return p.requests == 0 && slices.ContainsFunc(p.failing, func(f *failing) bool { return f.trial })
}

// rest sets the subscriber's wait where nothing can be started until a failing
// event is due: all lanes are kept, or the window holds nothing else.
func (p *Plan) rest(now time.Time) {
	if p.crowded > 0 && p.requests == 0 && !p.Stopped() {
		p.full(now)
	}
	if len(p.failing) == 0 || p.requests > 0 || p.Stopped() {
		return
	}
	if slices.ContainsFunc(p.failing, func(f *failing) bool { return f.entry == nil }) {
		return // it comes with an Offer, or is there no more
	}
	kept := len(p.failing)+len(p.groups) >= p.lanes
	full := p.window.live >= p.windowMax()
	if !kept && !full || p.choose(now) != nil {
		return
	}
	if p.looking() && !full && !p.noMore {
		return // what is offered next may tell
	}
	f := p.firstDue()
	until := f.due
	if !kept {
		if h := p.heldDue(); h != nil && h.due.Before(until) {
			until = h.due
		}
	}
	if !until.After(now) {
		return // it comes with the next OfferHeld
	}
	for _, f := range p.failing {
		f.trial = false
	}
	p.pause(until.Sub(now), store.WaitRecord, p.refusedText(f), now)
}

func (p *Plan) refusedText(f *failing) string {
	of := fmt.Sprintf("attempt %d of %d", f.attempts, p.cfg.Retry.EventAttempts)
	if f.attempts >= p.cfg.Retry.EventAttempts {
		of = fmt.Sprintf("attempt %d; no other record was accepted since", f.attempts)
	}
	return fmt.Sprintf("event %d was refused with %s (%s)", f.sequence, f.text, of)
}
