package activities

import (
	"time"

	"postroad/store"
)

// unsaved counts settled events whose checkpoint has not committed, and knows
// how old the oldest is.
type unsaved struct {
	total int64 // settled by this run
	saved int64 // of them, committed
	// marks are the first settlements after each submitted checkpoint.
	marks []mark
	open  bool // the last mark covers the settlements of now
}

type mark struct {
	after int64 // settlements before it
	at    time.Time
}

func (u *unsaved) settled(n int, now time.Time) {
	if !u.open {
		u.marks = append(u.marks, mark{u.total, now})
		u.open = true
	}
	u.total += int64(n)
}

// submitted returns what a checkpoint made now will have saved.
func (u *unsaved) submitted() int64 {
	u.open = false
	return u.total
}

func (u *unsaved) committed(total int64) {
	u.saved = max(u.saved, total)
	if u.saved >= u.total {
		u.marks, u.open = u.marks[:0], false
	}
	for len(u.marks) > 1 && u.marks[1].after <= u.saved {
		u.marks = append(u.marks[:0], u.marks[1:]...)
	}
}

func (u *unsaved) count() int { return int(u.total - u.saved) }

func (u *unsaved) age(now time.Time) time.Duration {
	if len(u.marks) == 0 {
		return 0
	}
	return now.Sub(u.marks[0].at)
}

// gate waits until a request of n events may start, and counts it as started.
// False: none may, the run is to end. Each request and each re-send passes it:
//
//   - no drain and no control was seen, PostgreSQL was heard of within LeaseLost,
//     and no wait is in force;
//   - a crash now would repeat few enough events, all of them young;
//   - the lease was ours less than LeaseTrust ago, by a statement sent then;
//   - there is room to record the attempt.
func (r *run) gate(n int) bool {
	for {
		room, roomMade := r.a.attempts.hasRoom()
		now := time.Now()
		r.mu.Lock()
		switch {
		case r.closed || r.draining || r.lost || r.fenced || r.broken != nil || r.plan.Stopped():
			r.mu.Unlock()
			return false
		case !r.fewUnsaved(n, now):
			if r.unsaved.open { // else what it waits for is submitted
				r.saveLocked(nil, nil)
			}
			r.mu.Unlock()
			<-r.kick
		case now.Sub(r.confirmed) >= r.a.cfg.LeaseTrust:
			r.mu.Unlock()
			r.confirm()
		case !room:
			r.mu.Unlock()
			select {
			case <-roomMade:
			case <-r.kick:
			}
		default:
			r.underWay++
			r.mu.Unlock()
			return true
		}
	}
}

func (r *run) fewUnsaved(n int, now time.Time) bool {
	count := r.unsaved.count()
	return count == 0 || count+n <= r.a.cfg.UnsavedEvents && r.unsaved.age(now) < r.a.cfg.UnsavedAge
}

// confirm asks PostgreSQL whether the lease is still ours.
func (r *run) confirm() {
	desired, held, sentAt, err := r.a.confirmations.ask(r.ctx, store.Lease{Subscriber: r.id, ID: r.lease})
	if err != nil {
		r.log.Warn("lease not confirmed", "error", err)
		select {
		case <-r.kick:
		case <-time.After(checkpointRetryMax):
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !held {
		r.fenced = true
		return
	}
	r.confirmed = sentAt
	r.controlSeenLocked(desired)
}

// controlSeen closes the gate for a control and puts it in force by a
// checkpoint at once, before what is in flight ends.
func (r *run) controlSeen(version int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.controlSeenLocked(version)
}

func (r *run) controlSeenLocked(version int64) {
	if version <= max(r.desired, r.applied) {
		return
	}
	r.applied, r.closed = version, true
	if !r.parking {
		r.saveLocked(nil, nil)
	}
	r.wake()
}

// drain closes the gate; requests in flight get their bound.
func (r *run) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining || r.over {
		return
	}
	r.draining = true
	r.drainTimer = time.AfterFunc(r.a.cfg.DrainRequests, r.cancel)
	r.wake()
}

func (r *run) wake() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// scheduleSaveLocked has the position written soon: at once when enough is
// settled, else within CheckpointAfter.
func (r *run) scheduleSaveLocked() {
	if r.unsaved.count() >= r.a.cfg.CheckpointEvents && r.unsaved.open {
		r.saveLocked(nil, nil)
		return
	}
	if r.flush == nil {
		r.flush = time.AfterFunc(r.a.cfg.CheckpointAfter, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.flush = nil
			if r.dirty && !r.parking {
				r.saveLocked(nil, nil)
			}
		})
	}
}

// saveLocked submits the position as it is now. change adds to the checkpoint;
// done gets the result, from the writer's goroutine.
func (r *run) saveLocked(change func(*store.Checkpoint), done func(saved)) {
	now := time.Now()
	snapshot := r.plan.Snapshot(now)
	c := r.checkpointOf(&snapshot)
	c.ID, c.Lease, c.Applied = r.id, r.lease, r.applied
	c.Delivered = r.unsaved.count() > 0
	if change != nil {
		change(c)
	}
	total := r.unsaved.submitted()
	r.dirty, r.touched = false, now
	render := func(at time.Time) *store.Checkpoint { return laterBy(c, at.Sub(now)) }
	last := c.Release || c.Park
	r.a.checkpoints.submit(r.lease, render, func(s saved) {
		r.saved(s, total, snapshot.Mark, last)
		if done != nil {
			done(s)
		}
	})
}

// saved takes in what a checkpoint found. After the last one the row is no
// longer this run's business.
func (r *run) saved(s saved, total, mark int64, last bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.wake()
	switch {
	case s.err != nil:
		r.broken = s.err
	case !s.Held:
		r.fenced = true
	default:
		r.unsaved.committed(total)
		r.plan.Committed(mark)
		if last {
			return
		}
		if s.sentAt.After(r.confirmed) {
			r.confirmed = s.sentAt
		}
		r.controlSeenLocked(s.Desired)
	}
}

func (r *run) brokenBy() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

func (r *run) stopTimers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.parking, r.over = true, true
	for _, timer := range []*time.Timer{r.flush, r.drainTimer, r.pulse} {
		if timer != nil {
			timer.Stop()
		}
	}
}
