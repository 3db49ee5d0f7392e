package activities

import (
	"context"
	"errors"
	"time"

	"postroad/eventlog"
	"postroad/store"
)

// untilTouch is how long an idle run may rest before its row must be marked as
// looked at.
func (r *run) untilTouch() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	every := r.a.cfg.Touch
	if r.dirty {
		every = min(every, scannedSaveAfter)
	}
	return max(0, time.Until(r.touched.Add(every)))
}

// scannedSaveAfter is how late the row may learn of events that were only
// looked at.
const scannedSaveAfter = time.Second

// touch marks the row as looked at, when it is time.
func (r *run) touch() {
	if r.untilTouch() > 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.saveLocked(nil, nil)
}

// startPulse marks the row as looked at, every so often, also while the run
// waits for an answer or at the gate. A lease that was lost is noticed by it, and
// so is a PostgreSQL that is out of reach.
func (r *run) startPulse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pulse = time.AfterFunc(min(r.a.cfg.Touch, r.a.cfg.LeaseLost), r.beat)
}

func (r *run) beat() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return
	}
	left := r.a.cfg.Touch - time.Since(r.touched)
	if left <= 0 && !r.parking {
		r.saveLocked(nil, nil)
	}
	if left <= 0 {
		left = r.a.cfg.Touch
	}
	until := r.a.cfg.LeaseLost - time.Since(r.confirmed)
	if until <= 0 && !r.lost {
		r.lost = true
		r.log.Warn("PostgreSQL is out of reach: the subscriber is left to other workers", "unheard_for", time.Since(r.confirmed))
		r.wake()
	}
	if until > 0 {
		left = min(left, until)
	}
	r.pulse.Reset(left)
}

// reconsider looks at the configuration again after a failure: it may have been
// changed while the request was in flight, and if it leads elsewhere now, what
// the failures cost is forgotten, as it would have been had the change come a
// moment later. True: go on under the new configuration.
func (r *run) reconsider() bool {
	r.mu.Lock()
	due := !r.fenced && r.broken == nil && r.plan.Owes()
	r.mu.Unlock()
	if !due {
		return false
	}
	var now store.Loaded
	err := bounded(r.ctx, func(ctx context.Context) (err error) {
		now, err = r.a.cfg.Store.Load(ctx, r.id)
		return err
	})
	if err != nil || now.ReachesAs(r.loaded) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan.Forgive()
	return !r.draining && !r.plan.Stopped()
}

// final submits a last checkpoint and waits until it is written. While
// PostgreSQL is away it waits with the lease, for as long as it would with
// anything else. A drain bounds the wait. False: it is not known to be written;
// the writer goes on trying.
func (r *run) final(change func(*store.Checkpoint)) (saved, bool) {
	done := make(chan saved, 1)
	r.mu.Lock()
	r.parking = true
	r.saveLocked(change, func(s saved) { done <- s })
	r.mu.Unlock()
	var bound <-chan time.Time
	for {
		select {
		case s := <-done:
			return s, true
		case <-bound:
			r.abandoned = true
			return saved{}, false
		case <-r.kick:
		case <-time.After(time.Second):
		}
		r.mu.Lock()
		draining, lost := r.draining, r.lost
		r.mu.Unlock()
		if lost {
			r.abandoned = true
			return saved{}, false
		}
		if draining && bound == nil {
			bound = time.After(r.a.cfg.ReleaseTimeout)
		}
	}
}

// release writes the last position and gives the lease back. If it was not
// ours any more the row knows better: whoever looks at it next will see.
func (r *run) release(end ending) ending {
	s, written := r.final(func(c *store.Checkpoint) {
		c.Release, c.InFlight = true, 0
		c.ReplayFinished = end == endReplayed
	})
	switch {
	case !written:
		return endDrained
	case s.err != nil:
		return endBroken
	}
	return end
}

// park leaves the row to the wakers. No wake can be lost: what committed
// before the parking did is found by the look at the database that follows it,
// and what commits later is seen by a waker, to whom the parking is announced.
func (r *run) park() ending {
	r.mu.Lock()
	now := time.Now()
	due, isDue := r.plan.Due(now)
	r.mu.Unlock()
	s, written := r.final(func(c *store.Checkpoint) {
		c.Park, c.InFlight = true, 0
		if isDue {
			c.WakeAfter = max(time.Microsecond, due.Sub(now))
		}
	})
	switch {
	case !written:
		return endDrained
	case s.err != nil:
		return endBroken
	case !s.Held:
		return endFenced
	}
	r.generation = s.Generation
	if err := bounded(r.ctx, func(ctx context.Context) error { return r.a.cfg.Store.AnnounceParked(ctx, r.id) }); err != nil {
		r.log.Warn("parking not announced", "error", err) // the wakers reload
	}
	if s.Desired > r.desired {
		return endControl // in force since the parking; the row says what it is
	}
	match, err := r.lookAgain()
	if err != nil {
		r.log.Warn("no look at the log after parking", "error", err) // the wakers look too
	}
	if match == 0 || err != nil {
		return endParked
	}
	return r.unpark(match)
}

// lookAgain asks the database, never the ring, for something to send.
func (r *run) lookAgain() (match int64, err error) {
	after := r.scanned
	for {
		err = bounded(r.ctx, func(ctx context.Context) error {
			match, _, err = r.a.cfg.Log.FirstMatch(ctx, r.feedID, after, 0, r.filter)
			return err
		})
		var below *eventlog.BelowFloorError
		if !errors.As(err, &below) || below.FirstSequence-1 <= after {
			return match, err
		}
		after = below.FirstSequence - 1 // what was removed is not to be sent
	}
}

// unpark goes on to the event match if nobody did meanwhile. Until the reader
// has brought it the run does not park again.
func (r *run) unpark(match int64) ending {
	sentAt := time.Now()
	var ok bool
	err := bounded(r.ctx, func(ctx context.Context) (err error) {
		ok, err = r.a.cfg.Store.Unpark(ctx, r.id, r.lease, r.generation, r.desired)
		return err
	})
	if err != nil {
		// It may have been done or not; giving the lease back ends both.
		r.log.Warn("not known to be unparked", "error", err)
		return endBudget
	}
	if !ok {
		return endParked // a wake follows: there is something to send
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parking, r.confirmed, r.touched, r.idleSince = false, sentAt, sentAt, sentAt
	r.expected = match
	return endNone
}
