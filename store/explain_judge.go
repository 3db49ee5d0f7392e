package store

import (
	"fmt"
	"slices"
	"time"

	"postroad/event"
)

// judge says what became of the event; see the Delivery constants for the order.
func (p *explained) judge() Delivery {
	d := Delivery{Subscriber: p.run.ID, Sequence: p.event.Sequence, Attempts: p.count, MoreAttempts: p.more, Held: p.held, DeadLetter: p.dead}
	if !p.event.Removed {
		d.FilteredBy = filteredBy(p.run.filter, &p.event)
	}
	if d.FilteredBy == "" {
		d.Event = &p.event
		d.Replay = p.openReplay()
	}
	if p.newest != nil {
		c := p.newest
		d.LastAnswer = &DeliveryAnswer{At: c.started.UTC(), Attempt: c.attempt, Class: c.class, Status: c.status, Error: c.error, Replay: c.replay}
	}
	if p.first != nil {
		d.Delivered = &DeliveredAt{
			At: p.first.started.UTC(), Attempt: p.first.attempt, Status: *p.first.status, Replay: p.first.replay,
			Times: p.accepted, LastAt: p.latest.started.UTC(),
		}
	}
	p.forgetErased(&d)
	switch {
	case d.Delivered != nil:
		d.State, d.Reason = DeliveryDelivered, d.Delivered.sentence()
	case d.Held != nil:
		d.State, d.Reason = DeliveryHeld, d.Held.sentence(p.run.Now)
	case d.DeadLetter != nil:
		d.State, d.Reason = DeliveryDead, d.DeadLetter.sentence()
	case p.event.Removed:
		d.State, d.Reason = DeliveryRemoved, "the feed keeps it no longer: it was removed, or left out by compaction; no delivery of it is on record"
	case d.FilteredBy != "":
		d.State, d.Reason = DeliveryFiltered, "the subscriber's filter does not let it pass: "+d.FilteredBy
	case !p.run.dealtWith(p.event.Sequence):
		p.waiting(&d)
	default:
		p.passed(&d)
	}
	return d
}

// forgetErased takes out what was answered to an event that was erased: an answer
// may quote what it was sent.
func (p *explained) forgetErased(d *Delivery) {
	if !p.event.Erased {
		return
	}
	if d.LastAnswer != nil {
		d.LastAnswer.Error = ""
	}
	if d.Held != nil {
		d.Held.LastError = ""
	}
	if d.DeadLetter != nil {
		d.DeadLetter.LastError = ""
	}
}

// filteredBy is the member of the filter that the event does not pass; "": it does.
func filteredBy(f event.Filter, e *ExplainedEvent) string {
	switch {
	case !event.Filter{ResourceNames: f.ResourceNames}.Match(e.Key.ResourceName, e.EventType):
		return "resourceNames"
	case !f.Match(e.Key.ResourceName, e.EventType):
		return "eventTypes"
	}
	return ""
}

// dealtWith: everything up to the cursor is, and what lies in the settled ranges.
func (r *explainedRun) dealtWith(sequence int64) bool {
	return sequence <= r.Cursor || inRanges(r.Settled, sequence)
}

// inRanges reports whether n lies in one of the ranges from, to, from, to.
func inRanges(ranges []int64, n int64) bool {
	for i := 0; i+1 < len(ranges); i += 2 {
		if n >= ranges[i] && n <= ranges[i+1] {
			return true
		}
	}
	return false
}

// openReplay is the first open replay that has yet to deal with the event; 0: none.
func (p *explained) openReplay() int64 {
	if p.dead != nil && p.dead.Replay != 0 {
		return p.dead.Replay
	}
	n := p.event.Sequence
	for _, r := range p.run.replays {
		s := r.selection
		if s.Missed || n <= max(r.after, r.cursor) || n > r.through || inRanges(r.settled, n) {
			continue
		}
		names := event.Filter{ResourceNames: s.ResourceNames}
		if names.Match(p.event.Key.ResourceName, p.event.EventType) && (s.Keys == nil || slices.Contains(s.Keys, p.event.Key)) {
			return r.id
		}
	}
	return 0
}

func (p *explained) waiting(d *Delivery) {
	d.State = DeliveryWaiting
	d.SubscriberState, d.SubscriberReason = describe(&p.run.Run, max(0, p.run.head-p.run.Cursor), false)
	d.Reason = "not sent yet"
	if p.run.Pull {
		d.Reason = "not committed yet by the consumer, which fetches its events"
	}
	if d.LastAnswer != nil {
		d.Reason = fmt.Sprintf("not accepted in %s so far, last %s", times(d.Attempts, d.MoreAttempts), answered(d.LastAnswer.Status, d.LastAnswer.Error))
	}
}

// passed judges an event that is dealt with and that no request is known to have
// delivered.
func (p *explained) passed(d *Delivery) {
	n := p.event.Sequence
	seek, back := p.seekPast()
	switch start := p.run.StartSequence; {
	case start != nil && n <= *start && d.Attempts == 0 && !back && seek == nil:
		d.State, d.Reason = DeliveryBeforeStart, fmt.Sprintf("the subscriber began above %d", *start)
	case seek != nil:
		d.State, d.Seek = DeliverySeek, seek
		d.Reason = fmt.Sprintf("a seek from %d to %d at %s moved past it", seek.From, seek.To, moment(seek.At))
	case d.LastAnswer != nil:
		d.State = DeliverySettled
		d.Reason = fmt.Sprintf("dealt with; no 2xx for it is on record, last %s: the consumer took it with Postroad-Accepted-Through, "+
			"a person dismissed it, or the record of its delivery is gone", answered(d.LastAnswer.Status, d.LastAnswer.Error))
	case p.run.Pull:
		d.State = DeliverySettled
		d.Reason = "dealt with: committed by the consumer, which fetches its events, or accepted while it was sent them"
	default:
		d.State = DeliverySettled
		d.Reason = "dealt with; no request that delivered it is on record, not yet or no longer"
	}
}

// seekPast is the last seek forward past the event that none back below it
// followed; back says that one ever went back below it.
func (p *explained) seekPast() (past *DeliverySeekPast, back bool) {
	n := p.event.Sequence
	for _, c := range p.run.changes {
		switch {
		case !c.seek:
		case c.To < n:
			past, back = nil, true
		case c.From < n:
			past = &DeliverySeekPast{Version: c.version, At: c.at.UTC(), From: c.From, To: c.To}
		}
	}
	return past, back
}

func (d *DeliveredAt) sentence() string {
	text := fmt.Sprintf("%s, HTTP %d, attempt %d", moment(d.At), d.Status, d.Attempt)
	if d.Replay != 0 {
		text += fmt.Sprintf(", replay %d", d.Replay)
	}
	if d.Times > 1 {
		text += fmt.Sprintf("; accepted %d times, last %s", d.Times, moment(d.LastAt))
	}
	return text
}

func (h *DeliveryHold) sentence(now time.Time) string {
	first := fmt.Sprintf("the first of its key; %s", times(h.Attempts, false))
	if !h.First {
		first = fmt.Sprintf("behind event %d of the same key; that one: %s", h.FirstSequence, times(h.Attempts, false))
	}
	due := "due now"
	if h.Due != nil && h.Due.After(now) {
		due = "due " + clock(*h.Due, now)
	}
	return fmt.Sprintf("%s, last %s; held since %s, %s", first, answeredCode(h.LastStatus, h.LastError), moment(h.Since), due)
}

func (l *DeliveryDeadLetter) sentence() string {
	text := fmt.Sprintf("given up (%s) at %s after %s", l.Reason, moment(l.At), times(l.Attempts, false))
	if l.Attempts > 0 {
		text += ", last " + answeredCode(l.LastStatus, l.LastError)
	}
	if l.Replay != 0 {
		text += fmt.Sprintf("; replay %d will send it", l.Replay)
	}
	return text
}

func answered(status *int, fault string) string {
	if status == nil {
		return answeredCode(0, fault)
	}
	return answeredCode(*status, fault)
}

// answeredCode says what an answer was, by its status where there was one.
func answeredCode(status int, fault string) string {
	switch {
	case status != 0:
		return fmt.Sprintf("HTTP %d", status)
	case fault != "":
		return fault
	}
	return "no answer"
}

func times(n int, more bool) string {
	switch {
	case more:
		return fmt.Sprintf("more than %d attempts", n)
	case n == 1:
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}

// moment writes a time that is over, for people.
func moment(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }
