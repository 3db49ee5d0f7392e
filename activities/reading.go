package activities

import (
	"context"
	"errors"
	"time"

	"postroad/event"
	"postroad/eventlog"
	"postroad/store"
)

// read reads ahead of the sending, one page at a time, until the run ends.
func (r *run) read() (<-chan page, <-chan struct{}) {
	pages, done := make(chan page, 1), make(chan struct{})
	r.looking.Store(true)
	go func() {
		defer close(done)
		position := r.scanned
		for r.ctx.Err() == nil {
			p, err := r.source.Next(r.ctx)
			if err == nil && p.scanned > position {
				position = p.scanned
				select {
				case pages <- p:
				case <-r.ctx.Done():
				}
				continue
			}
			r.looking.Store(false)
			r.wake()
			if err == nil {
				err = r.source.Wait(r.ctx)
			}
			var below *eventlog.BelowFloorError
			if errors.As(err, &below) {
				r.fall()
				return
			}
			if err != nil && r.ctx.Err() == nil {
				r.log.Warn("read delayed", "after", position, "error", err)
				select {
				case <-r.ctx.Done():
				case <-time.After(pageRetry):
				}
			}
			r.looking.Store(true)
		}
	}()
	return pages, done
}

// fall ends a run whose next events are not what the row says any more, as they
// were removed: whoever looks at it next will see which are.
func (r *run) fall() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fallen = true
	r.wake()
}

// fill takes what the reader has, once there is room for a good part of the
// window, or where all is wanted for any. It reports whether something came.
func (r *run) fill(pages <-chan page, all bool) (came bool) {
	for {
		if r.left == nil {
			select {
			case p := <-pages:
				r.brought(p)
			default:
				return came
			}
		}
		if !r.offer(all) {
			return came
		}
		came = true
	}
}

// offer hands the plan what it has room for. False: it takes nothing now.
func (r *run) offer(all bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false // what comes after a control is for the filter that it may have brought
	}
	p := r.left
	room := r.plan.Room()
	least := min(r.refill, len(p.events)) // a little at a time would cost as much as all
	if all {
		least /= 8
	}
	if all && r.underWay == 0 {
		least = 1
	}
	if len(p.events) > 0 && (room < max(1, least) || r.plan.Bytes() >= queueBytesMax) {
		return false
	}
	n := min(room, len(p.events))
	part := page{events: p.events[:n:n], scanned: p.scanned}
	if p.older != nil {
		part.older = p.older[:n:n]
	}
	r.left = nil
	if n < len(p.events) {
		part.scanned = p.events[n-1].Sequence
		r.left = &page{events: p.events[n:], scanned: p.scanned}
		if p.older != nil {
			r.left.older = p.older[n:]
		}
	}
	r.plan.Offer(part.events, part.older, part.scanned)
	r.scanned, r.dirty = part.scanned, true
	switch unsaved := r.plan.Unsaved(); {
	case unsaved >= r.a.cfg.CheckpointEvents:
		r.saveLocked(nil, nil)
	case unsaved > 0:
		r.scheduleSaveLocked()
	}
	return true
}

// nothingMore tells the plan that all there is was looked through, if that is so.
func (r *run) nothingMore(pages <-chan page) bool {
	if r.looking.Load() || len(pages) > 0 || r.left != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan.NothingMore(time.Now())
	return true
}

// brought takes in what the reader brought: looking through a log that holds
// little is no idling.
func (r *run) brought(p page) {
	r.left = &p
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idleSince = time.Now()
}

// idle waits for something to send. A run that lingered long enough parks, but
// not before it has looked through what there is; one whose replay is over ends.
func (r *run) idle(pages <-chan page) ending {
	looking := r.looking.Load() // asked first: what it brought before is taken below
	r.mu.Lock()
	now := time.Now()
	resting := r.restingLocked()
	due, isDue := r.plan.Due(now)
	stopped := r.plan.Stopped() // Next may have found that out
	over := r.replay != nil && resting && !stopped && r.plan.Snapshot(now).Cursor >= r.replay.Through
	idleSince := r.idleSince
	r.mu.Unlock()
	switch {
	case stopped:
		return endNone
	case over:
		return endReplayed
	}
	linger := r.a.cfg.Linger
	if r.a.pressed() {
		linger = 0
	}
	left := time.Until(idleSince.Add(linger))
	if left <= 0 || r.untilTouch() <= 0 {
		r.pass(pages)
	}
	if left <= 0 && !looking && resting && r.replay == nil && r.scanned >= r.expected {
		select {
		case p := <-pages:
			r.brought(p)
			return endNone
		default:
			return r.park()
		}
	}
	if left <= 0 {
		left = pageRetry // the reader is about to bring what it looks at, or what the last look found
	}
	r.touch()
	left = min(left, r.untilTouch(), max(0, time.Until(r.a.deadline(r.began))))
	if wait := due.Sub(now); isDue && wait > 0 {
		left = min(left, wait)
	} else if isDue {
		left = min(left, pageRetry) // something has to be read or written first
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	if r.left != nil {
		pages = nil // there is no room for more
	}
	select {
	case p := <-pages:
		r.brought(p)
	case <-r.kick:
	case <-timer.C:
	}
	return endNone
}

// pass moves the position over events that do not match, which the reader is not
// told of, before the row is written: whoever takes it up does not read them again.
func (r *run) pass(pages <-chan page) {
	passed := r.source.Passed() // asked first: what came before it waited stands in pages
	if passed <= r.scanned || len(pages) > 0 || r.left != nil {
		return
	}
	r.left = &page{scanned: passed}
	r.offer(true)
}

// restingLocked reports that nothing is under way or could be started. An answer
// may have come since the plan was asked for something to send: it is asked again
// then.
func (r *run) restingLocked() bool { return r.left == nil && r.plan.Idle() }

// bringHeld brings what waits behind a held key that is due.
func (r *run) bringHeld() {
	r.mu.Lock()
	now := time.Now()
	key, wanted := r.plan.HeldWanted(now)
	r.mu.Unlock()
	if !wanted || now.Before(r.heldAfter) {
		return
	}
	events, replays, complete, err := r.readHeld(key)
	if err != nil {
		r.log.Warn("held events not read", "error", err)
		r.heldAfter = now.Add(pageRetry)
		return
	}
	if len(events) == 0 {
		r.fall() // removed with the floor: the row knows
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan.OfferHeld(key, events, replays, complete)
}

func (r *run) readHeld(key event.Key) (events []*event.Event, replays []int64, complete bool, err error) {
	var held []store.HeldEvent
	err = bounded(r.ctx, func(ctx context.Context) (err error) {
		held, err = r.a.cfg.Store.HeldEvents(ctx, r.id, key, 0, heldPage)
		return err
	})
	if err != nil || len(held) == 0 {
		return nil, nil, false, err
	}
	sequences := make([]int64, len(held))
	of := make(map[int64]int64, len(held))
	for i, h := range held {
		sequences[i], of[h.Sequence] = h.Sequence, h.Replay
	}
	err = bounded(r.ctx, func(ctx context.Context) (err error) {
		events, err = r.held.Events(ctx, sequences)
		return err
	})
	for _, e := range events {
		replays = append(replays, of[e.Sequence])
	}
	return events, replays, len(held) < heldPage, err
}
