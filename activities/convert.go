package activities

import (
	"time"

	"postroad/activities/planner"
	"postroad/store"
)

// deadMax is how many dead letters within a replay's bounds are known to it, to be
// taken off the list once they are accepted.
const deadMax = 100_000

// stateOf is what the rows say, as the planner takes it.
func stateOf(row *store.Run, loaded *store.Loaded) planner.State {
	s := planner.State{
		Stream: planner.Stream{
			Cursor: row.Cursor, Scanned: row.Scanned, Settled: row.Settled, Previous: row.PreviousSequence,
			EventAttempt: row.EventAttempt, Failing: row.FailingEvents,
		},
		Failures: row.Failures, Asked: row.Asked, Probe: row.Probe, BatchLimit: row.BatchLimit,
		RangeFirst: row.RangeFirst, RangeLast: row.RangeLast, RangeAttempt: row.RangeAttempt,
		Held: loaded.Held, HeldEvents: loaded.HeldEvents,
		LearnedBatch: row.LearnedBatch, LearnedLanes: row.LearnedLanes,
	}
	if row.FailingSince != nil {
		s.Failing, s.FailingFor = true, row.Now.Sub(*row.FailingSince)
	}
	if row.LastError != nil {
		s.LastError = *row.LastError
	}
	if r := loaded.Replay; r != nil {
		s.Stream = planner.Stream{
			Cursor: r.Cursor, Scanned: r.Cursor, Settled: r.Settled, Previous: r.PreviousSequence,
			EventAttempt: r.EventAttempt, Failing: r.FailingEvents,
		}
	}
	return s
}

// checkpointOf is the position as the rows take it.
func (r *run) checkpointOf(s *planner.Snapshot) *store.Checkpoint {
	c := &store.Checkpoint{
		Cursor: s.Cursor, Scanned: s.Scanned, Settled: s.Settled, PreviousSequence: s.Previous,
		EventAttempt: s.EventAttempt, FailingEvents: s.Failing,
		Failures: s.Failures, Asked: s.Asked,
		RangeFirst: s.RangeFirst, RangeLast: s.RangeLast, RangeAttempt: s.RangeAttempt,
		Probe: s.Probe, BatchLimit: s.BatchLimit, LastError: s.LastError,
		Disable: s.Disabled, Halt: s.Halted, HaltedEvent: s.HaltedEvent,
		LearnedBatch: s.LearnedBatch, LearnedLanes: s.LearnedLanes, Aside: s.Aside,
	}
	_, c.InFlight = r.plan.InFlight()
	if !s.FailingSince.IsZero() {
		c.Failing, c.FailingFor = true, s.Taken.Sub(s.FailingSince)
	}
	if s.Wait != nil {
		// A wait that is over already is still one: the least there is, so that its
		// reason is recorded.
		c.Wait = max(time.Microsecond, s.Wait.Until.Sub(s.Taken))
		c.WaitClass, c.WaitReason = s.Wait.Class, s.Wait.Reason
	}
	if r.replay != nil {
		c.Replay, c.ReplayDone = r.replay.ID, r.replay.Done+int64(r.plan.Passed())
	}
	return c
}

// laterBy is a checkpoint as it has to be written some time after it was made:
// what waits waits for less, and what fails has failed for longer.
func laterBy(c *store.Checkpoint, elapsed time.Duration) *store.Checkpoint {
	later := *c
	shorten := func(d time.Duration) time.Duration { return max(time.Microsecond, d-elapsed) }
	if c.Wait > 0 {
		later.Wait = shorten(c.Wait)
	}
	if c.WakeAfter > 0 {
		later.WakeAfter = shorten(c.WakeAfter)
	}
	if c.Failing {
		later.FailingFor += elapsed
	}
	if len(c.FailingEvents) > 0 {
		later.FailingEvents = make([]store.FailingEvent, len(c.FailingEvents))
		for i, f := range c.FailingEvents {
			if f.Wait > 0 {
				f.Wait = shorten(f.Wait)
			}
			later.FailingEvents[i] = f
		}
	}
	if c.Aside != nil && len(c.Aside.Keys) > 0 {
		aside := *c.Aside
		aside.Keys = make([]store.HeldKey, len(c.Aside.Keys))
		for i, k := range c.Aside.Keys {
			if k.Wait > 0 {
				k.Wait = shorten(k.Wait)
			}
			aside.Keys[i] = k
		}
		later.Aside = &aside
	}
	return &later
}
