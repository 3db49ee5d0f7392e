package activities

import (
	"fmt"
	"math/rand/v2"
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

// wait is the time during which nothing may be sent.
type wait struct {
	until  time.Time // by the monotonic clock
	class  string    // store.WaitAsked, WaitEndpoint, WaitRecord
	reason string    // for people, without the time
}

// position is how far a run is and how the consumer has been answering. It is
// a pure state machine: answers in, what to do next out. Its whole state is
// written with every checkpoint, so that a rebuilt run goes on exactly here.
type position struct {
	policy    event.Retry
	batchSize int

	cursor   int64 // everything matching up to here is settled
	previous int64 // the last matching event before the next one

	failures     int       // endpoint failures in a row: the schedule's step
	failingSince time.Time // by the monotonic clock; zero: it does not fail
	asked        int       // waits asked for in a row
	eventAttempt int       // requests charged to the first unsettled event
	rangeFirst   int64     // the range last sent, and how many
	rangeLast    int64     // requests it got
	rangeAttempt int
	probe        bool // the next request carries one event
	batchLimit   int  // 0: batchSize; else what halving left
	suspects     int  // next events among which one is known to be refused; a rebuilt run finds out again

	wait      *wait
	lastError string
	disabled  bool
	halted    string // why; empty: it is not

	// jitter returns a number in [-1, 1).
	jitter func() float64
}

// newPosition takes up where the row stands.
func newPosition(row *store.Run, sub *event.Subscriber, now time.Time) *position {
	p := &position{
		policy: sub.Retry, batchSize: sub.BatchSize.Or(event.BatchSizeMax),
		cursor: row.Cursor, previous: row.PreviousSequence,
		failures: row.Failures, asked: row.Asked, eventAttempt: row.EventAttempt,
		rangeFirst: row.RangeFirst, rangeLast: row.RangeLast, rangeAttempt: row.RangeAttempt,
		probe: row.Probe, batchLimit: row.BatchLimit,
		jitter: func() float64 { return 2*rand.Float64() - 1 },
	}
	if row.FailingSince != nil {
		p.failingSince = now.Add(-row.Now.Sub(*row.FailingSince))
	}
	if row.LastError != nil {
		p.lastError = *row.LastError
	}
	if p.batchLimit >= p.batchSize {
		p.batchLimit = 0
	}
	return p
}

// limit is the most events the next request may carry.
func (p *position) limit() int {
	switch {
	case p.probe:
		return 1
	case p.batchLimit > 0:
		return p.batchLimit
	}
	return p.batchSize
}

// starting counts a request for the range and returns its number.
func (p *position) starting(first, last int64) int {
	if first != p.rangeFirst || last != p.rangeLast {
		p.rangeFirst, p.rangeLast, p.rangeAttempt = first, last, 0
	}
	p.rangeAttempt++
	return p.rangeAttempt
}

// stopped reports that no request may be sent now: a wait or a hold.
func (p *position) stopped() bool { return p.wait != nil || p.disabled || p.halted != "" }

// scanned notes that nothing up to sequence is left to send.
func (p *position) scanned(sequence int64) bool {
	if sequence <= p.cursor {
		return false
	}
	p.cursor = sequence
	return true
}

// answered judges the answer to a request and returns how many of its events
// are settled, from the first on. What the consumer accepted by name
// (Postroad-Accepted-Through) counts first; the rest is judged by the status.
func (p *position) answered(events []*event.Event, a *delivery.Answer, now time.Time) (settled int) {
	settled = acceptedCount(events, a)
	if settled > 0 {
		last := events[settled-1].Sequence
		p.cursor, p.previous = last, last
		p.eventAttempt, p.failures, p.failingSince = 0, 0, time.Time{}
	}
	rest := events[settled:]
	if a.Class != delivery.ClassSuccess {
		p.lastError = answerText(a)
	}
	switch a.Class {
	case delivery.ClassSuccess:
		p.succeeded(len(events))
	case delivery.ClassGone:
		p.disabled, p.probe = true, true
	case delivery.ClassAsked:
		p.askedToWait(a, now)
	case delivery.ClassEndpoint:
		p.endpointFailed(a, now)
	case delivery.ClassRecord:
		p.recordRefused(rest, a, now)
	case delivery.ClassCanceled: // no answer: nothing is learnt
	}
	return settled
}

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

// fromConsumer tells an answer's status from Postroad's own.
const fromConsumer = " from the consumer"

// answerText is what people are told of an answer.
func answerText(a *delivery.Answer) string {
	if a.Status != 0 {
		return fmt.Sprintf("HTTP %d%s", a.Status, fromConsumer)
	}
	return a.Fault.Text
}

func retryAfter(a *delivery.Answer) time.Duration {
	if !a.RetryAfterValid {
		return 0
	}
	return a.RetryAfter
}

func (p *position) succeeded(n int) {
	p.failures, p.failingSince, p.asked, p.eventAttempt = 0, time.Time{}, 0, 0
	p.rangeFirst, p.rangeLast, p.rangeAttempt = 0, 0, 0
	p.probe, p.wait, p.lastError = false, nil, ""
	if p.suspects = max(0, p.suspects-n); p.suspects > 0 {
		// The refused event is among those that are left of the batch: growing
		// now would only send it again with more good ones.
		p.batchLimit = max(1, p.suspects/2)
		return
	}
	if p.batchLimit > 0 {
		if p.batchLimit *= 2; p.batchLimit >= p.batchSize {
			p.batchLimit = 0
		}
	}
}

// askedToWait obeys Retry-After on 429 and 503: it costs no attempt.
func (p *position) askedToWait(a *delivery.Answer, now time.Time) {
	p.asked++
	d := max(retryAfter(a), retryAfterMin)
	if p.asked >= askedPatience {
		d = max(d, p.step(p.asked-askedPatience))
	}
	reason := answerText(a)
	if a.RetryAfterCut {
		reason += fmt.Sprintf(" (Retry-After cut to %s)", p.policy.MaxRetryAfter)
	}
	p.pause(d, store.WaitAsked, reason, now)
}

// endpointFailed backs off along the schedule and charges no event.
func (p *position) endpointFailed(a *delivery.Answer, now time.Time) {
	if p.failingSince.IsZero() {
		p.failingSince = now
	}
	p.failures++
	if failing := now.Sub(p.failingSince); failing >= p.policy.GiveUpAfter.Std() {
		p.halt(fmt.Sprintf("the endpoint failed for %s without a break, last: %s", p.policy.GiveUpAfter, answerText(a)))
		return
	}
	d := max(p.step(p.failures-1), retryAfter(a))
	p.pause(d, store.WaitEndpoint, answerText(a), now)
}

// recordRefused charges the event where it was alone; a batch is halved
// without a wait until it is.
func (p *position) recordRefused(rest []*event.Event, a *delivery.Answer, now time.Time) {
	p.failures, p.failingSince = 0, time.Time{} // it answers: the endpoint is up
	if len(rest) == 0 {
		p.succeeded(0)
		return
	}
	p.suspects = len(rest)
	if len(rest) > 1 {
		p.batchLimit = max(1, len(rest)/2)
		return
	}
	p.eventAttempt++
	if p.eventAttempt >= p.policy.EventAttempts {
		p.halt(fmt.Sprintf("event %d (%s) was refused %d times, last answer %s",
			rest[0].Sequence, rest[0].ResourceName, p.eventAttempt, answerText(a)))
		return
	}
	d := max(p.step(p.eventAttempt-1), retryAfter(a))
	p.pause(d, store.WaitRecord, fmt.Sprintf("event %d was refused with %s (attempt %d of %d)",
		rest[0].Sequence, answerText(a), p.eventAttempt, p.policy.EventAttempts), now)
}

func (p *position) pause(d time.Duration, class, reason string, now time.Time) {
	p.wait = &wait{until: now.Add(d), class: class, reason: reason}
	p.probe = true
}

func (p *position) halt(reason string) {
	p.halted, p.wait, p.probe = reason, nil, true
}

func (p *position) failing() bool { return !p.failingSince.IsZero() }

// owes reports that failures cost a wait, or will make the next one longer. A
// wait that the consumer asked for is not among these costs.
func (p *position) owes() bool {
	if p.wait != nil {
		return p.wait.class != store.WaitAsked
	}
	return p.failures > 0
}

// forgive forgets what failures cost: they were another endpoint's.
func (p *position) forgive() { p.wait, p.failures, p.failingSince = nil, 0, time.Time{} }

// step is the schedule's wait of that index, the last one repeated, jittered.
func (p *position) step(index int) time.Duration {
	steps := p.policy.Schedule
	d := steps[min(index, len(steps)-1)].Std()
	return d + time.Duration(float64(d)*scheduleJitter*p.jitter())
}

// checkpoint is the position as the row takes it.
func (p *position) checkpoint(now time.Time) *store.Checkpoint {
	c := &store.Checkpoint{
		Cursor: p.cursor, PreviousSequence: p.previous,
		Failing: p.failing(), Failures: p.failures, Asked: p.asked, EventAttempt: p.eventAttempt,
		RangeFirst: p.rangeFirst, RangeLast: p.rangeLast, RangeAttempt: p.rangeAttempt,
		Probe: p.probe, BatchLimit: p.batchLimit, LastError: p.lastError,
		Disable: p.disabled, Halt: p.halted,
	}
	if p.failing() {
		c.FailingFor = now.Sub(p.failingSince)
	}
	if p.wait != nil {
		// A deadline that passed while the checkpoint could not be written is
		// still a wait: the least there is, so that its reason is recorded.
		c.Wait = max(time.Microsecond, p.wait.until.Sub(now))
		c.WaitClass, c.WaitReason = p.wait.class, p.wait.reason
	}
	return c
}
