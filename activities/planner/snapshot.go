package planner

import (
	"time"

	"postroad/store"
)

// Snapshot returns everything a checkpoint carries. It may be written or not, and
// before or after a later one: what is not committed is in each of them.
func (p *Plan) Snapshot(now time.Time) Snapshot {
	p.aside.mark++
	s := Snapshot{
		Stream: p.window.position(), Mark: p.aside.mark, Taken: now,
		Wait: p.wait, FailingSince: p.failingSince, Failures: p.failures, Asked: p.asked,
		Probe: p.probe, BatchLimit: p.batchLimit, LastError: p.lastError,
		Disabled: p.disabled, Halted: p.halted, HaltedEvent: p.haltedEvent,
		Aside: p.changes(now),
	}
	if p.cfg.BatchSize < 0 {
		s.LearnedBatch = p.batch()
	}
	if p.cfg.Lanes < 0 {
		s.LearnedLanes = p.lanes
	}
	first := p.window.first()
	if first != nil && first.sentTimes > 0 {
		s.RangeFirst, s.RangeLast, s.RangeAttempt = first.sequence, first.sentLast, first.sentTimes
	}
	if !p.begun && (p.olderRow || len(p.failing) > 0) {
		// Nothing was offered yet: what is known of the first event is as it was.
		s.EventAttempt = p.firstAttempts
		s.RangeFirst, s.RangeLast, s.RangeAttempt = p.sent[0], p.sent[1], int(p.sent[2])
	}
	for _, f := range p.failing {
		if f.entry != nil && f.entry == first {
			s.EventAttempt = f.attempts
		}
		if f.sequence == p.haltedEvent {
			continue // whoever resumes begins it anew
		}
		s.Failing = append(s.Failing, store.FailingEvent{
			Sequence: f.sequence, Attempts: f.attempts, Wait: max(0, f.due.Sub(now)), Proven: f.proven,
		})
	}
	return s
}
