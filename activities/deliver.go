package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/sdk/activity"

	"postroad/activities/planner"
	"postroad/contract"
	"postroad/store"
)

// statementTimeout bounds a statement of a run, so that a PostgreSQL that does
// not answer is noticed.
const statementTimeout = 10 * time.Second

// unwrittenMax is how long a Deliver waits for checkpoints that could not be
// written. Positions that this process left behind are written before anybody
// here begins after them; and a process that cannot reach PostgreSQL soon gives a
// subscriber back, to another one that may.
const unwrittenMax = 3 * time.Second

var errOutOfReach = errors.New("PostgreSQL is out of reach")

// ending says why a run ended.
type ending int

const (
	endNone     ending = iota
	endStopped         // a wait or a hold is in force
	endControl         // a control came: look at the row again
	endBudget          // the time budget is used up
	endParked          // nothing to send
	endReplayed        // a replay is over
	endFenced          // another run holds the lease
	endDrained         // the worker stops, Temporal gave this run up, or PostgreSQL is out of reach
	endBroken          // the position cannot be written
)

// Deliver takes the subscriber's lease and sends what it is owed, in order,
// until something holds it up: its row says what. Requests that fail are
// outcomes; an error means that PostgreSQL or the stored configuration could
// not be read, and Temporal tries again.
//
// A cancelled ctx means drain: requests in flight, the last checkpoint and the
// lease's release have bounds of their own.
func (a *Activities) Deliver(ctx context.Context, in contract.DeliverInput) (contract.DeliverResult, error) {
	stop := a.heartbeat(ctx)
	defer stop()
	a.counters.Delivering.Add(1)
	defer a.counters.Delivering.Add(-1)
	began := time.Now()
	base := context.WithoutCancel(ctx)
	seat, leave := a.runs.seat(in.Subscriber)
	defer leave()
	var delivered int64
	for {
		if a.stopping(ctx) {
			return contract.DeliverResult{Outcome: contract.OutcomeInterrupted, Delivered: delivered}, nil
		}
		seat.settle()
		r, result, err := a.take(base, in.Subscriber, began)
		if err == nil && r != nil {
			end := r.deliver(ctx)
			delivered += r.delivered
			inTime := time.Now().Before(a.deadline(began))
			if (end == endControl || end == endReplayed) && inTime {
				continue
			}
			result, err = a.outcome(base, r, end)
			if end == endStopped && err == nil && result.Outcome == contract.OutcomeMore && inTime {
				continue // the wait was over before it could be told of
			}
		}
		if err == nil && a.sitOut(ctx, seat, &result, began) {
			continue
		}
		result.Delivered = delivered
		return result, err
	}
}

// sitOut stays for a short wait, which would cost Temporal a timer and another
// Deliver, and reports whether to take the row up again. The row is as it would be
// had Deliver returned: it says what it waits for, and nobody has the lease. So
// whatever else becomes of the row, a control or the death of this process, finds
// it at rest; a control ends the stay, and who takes the row up next decides.
func (a *Activities) sitOut(ctx context.Context, seat seat, result *contract.DeliverResult, began time.Time) bool {
	left := time.Duration(result.RemainingMillis) * time.Millisecond
	if result.Outcome != contract.OutcomeBackoff || left > a.cfg.SitOut || a.pressedBy(a.runs.slots()+1) || time.Now().Add(left).After(a.deadline(began)) {
		return false
	}
	a.runs.sitting.Add(1)
	defer a.runs.sitting.Add(-1)
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-seat:
	case <-a.draining:
	case <-ctx.Done():
	}
	return true
}

// deadline is when the budget of a Deliver is used up. It comes closer while
// the slots are short, for those that run already too: others wait for theirs.
func (a *Activities) deadline(began time.Time) time.Time {
	if a.pressed() {
		return began.Add(a.cfg.BudgetShort)
	}
	return began.Add(a.cfg.Budget)
}

func (a *Activities) stopping(ctx context.Context) bool {
	select {
	case <-a.draining:
		return true
	default:
		return ctx.Err() != nil
	}
}

// take takes the lease and prepares a run; without a run the result says what
// to wait for.
func (a *Activities) take(base context.Context, id string, began time.Time) (*run, contract.DeliverResult, error) {
	if !a.checkpoints.awaitWritten(a.cfg.LeaseTrust, unwrittenMax) {
		return nil, contract.DeliverResult{}, errOutOfReach
	}
	lease := uuid.New()
	sentAt := time.Now()
	var taken store.Taken
	err := bounded(base, func(ctx context.Context) (err error) {
		taken, err = a.cfg.Store.TakeLease(ctx, id, lease)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, contract.DeliverResult{Outcome: contract.OutcomeGone}, nil
	}
	if err != nil {
		return nil, contract.DeliverResult{}, err
	}
	if !taken.Held {
		if err := a.fenceHolder(base, id, &taken.Run, taken.Stale); err != nil {
			return nil, contract.DeliverResult{}, err
		}
		result, err := a.rest(base, id)
		return nil, result, err
	}
	if taken.Stale {
		a.outwait() // its last request may just be starting
	}
	var loaded store.Loaded
	err = bounded(base, func(ctx context.Context) (err error) {
		loaded, err = a.cfg.Store.Load(ctx, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, contract.DeliverResult{Outcome: contract.OutcomeGone}, nil
	}
	if err != nil {
		return nil, contract.DeliverResult{}, err
	}
	r, err := a.newRun(base, lease, &taken.Run, &loaded, sentAt, began)
	return r, contract.DeliverResult{}, err
}

// fenceHolder makes sure that nobody sends for a subscriber that is on hold:
// a lease that still stands on its row belongs to a run that died or does not
// know yet.
func (a *Activities) fenceHolder(base context.Context, id string, row *store.Run, stale bool) error {
	if !stale && !row.Parked && row.AppliedVersion == row.DesiredVersion {
		return nil
	}
	err := bounded(base, func(ctx context.Context) error { return a.cfg.Store.ForceUnheld(ctx, id, false) })
	if err != nil {
		return err
	}
	if stale {
		a.outwait()
	}
	return bounded(base, func(ctx context.Context) error { return a.cfg.Store.ForceUnheld(ctx, id, true) })
}

// outwait waits until a fenced run can start no request any more. Nothing
// shortens it, because it keeps a promise and is short.
func (a *Activities) outwait() { <-time.After(a.cfg.LeaseTrust) }

// outcome says what an ended run means to the workflow.
func (a *Activities) outcome(base context.Context, r *run, end ending) (contract.DeliverResult, error) {
	switch end {
	case endFenced:
		a.counters.Fenced.Add(1)
		return contract.DeliverResult{Outcome: contract.OutcomeFenced}, nil
	case endDrained:
		return contract.DeliverResult{Outcome: contract.OutcomeInterrupted}, nil
	case endBroken:
		return contract.DeliverResult{}, fmt.Errorf("write the position of %s: %w", r.id, r.brokenBy())
	case endParked:
		result, err := a.rest(base, r.id)
		if err == nil && result.Outcome == contract.OutcomeMore {
			result.Outcome, result.Generation = contract.OutcomeParked, r.generation
		}
		return result, err
	default:
		return a.rest(base, r.id)
	}
}

// rest reads from the row what the subscriber is waiting for; `more` where it
// waits for nothing.
func (a *Activities) rest(base context.Context, id string) (contract.DeliverResult, error) {
	var row store.Run
	err := bounded(base, func(ctx context.Context) (err error) {
		row, err = a.cfg.Store.Run(ctx, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Deleted {
		return contract.DeliverResult{Outcome: contract.OutcomeGone}, nil
	}
	if err != nil {
		return contract.DeliverResult{}, err
	}
	var record store.Record
	err = bounded(base, func(ctx context.Context) (err error) {
		record, err = a.cfg.Store.Get(ctx, id)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return contract.DeliverResult{Outcome: contract.OutcomeGone}, nil
	}
	if err != nil {
		return contract.DeliverResult{}, err
	}
	result := describe(&row)
	result.Feed = record.FeedName
	result.Attributes = a.cfg.SearchAttributes
	return result, nil
}

// describe says what a row waits for.
func describe(row *store.Run) contract.DeliverResult {
	_, reason := store.Describe(row)
	result := contract.DeliverResult{Outcome: contract.OutcomeMore, State: contract.StateRunning, Reason: reason}
	switch {
	case row.Disabled:
		result.Outcome, result.State = contract.OutcomeHalted, contract.StateDisabled
	case row.HaltedReason != nil:
		result.Outcome, result.State = contract.OutcomeHalted, contract.StateHalted
	case row.PausedNow():
		result.Outcome, result.State = contract.OutcomePaused, contract.StatePaused
		result.RemainingMillis = ceilMillis(row.PauseRemaining())
		result.Summary = "paused"
	case row.Pull:
		// Nothing to do until a control makes it one to deliver again.
		result.Outcome, result.State = contract.OutcomePaused, contract.StatePull
	case row.Remaining() > 0:
		result.Outcome, result.State = contract.OutcomeBackoff, contract.StateRetrying
		result.RemainingMillis = ceilMillis(row.Remaining())
		result.Summary = waitSummary(row)
		if row.WaitClass != nil && *row.WaitClass == store.WaitAsked {
			result.State = contract.StateWaiting
		}
	case row.Parked && row.WakeAt != nil:
		// At least something: 0 would be for ever.
		result.RemainingMillis = max(1, ceilMillis(row.WakeAt.Sub(row.Now)))
		result.Summary = "retry of what is set aside"
	}
	return result
}

// waitSummary is what a timer is called in the Temporal UI.
func waitSummary(row *store.Run) string {
	reason, asked := "", false
	if row.WaitReason != nil {
		reason = strings.Replace(*row.WaitReason, planner.FromConsumer, "", 1)
	}
	if row.WaitClass != nil {
		asked = *row.WaitClass == store.WaitAsked
	}
	left := row.Remaining().Round(time.Millisecond).Seconds()
	if asked {
		return fmt.Sprintf("Retry-After %.6g s, %s", left, reason)
	}
	return fmt.Sprintf("retry in %.6g s, %s", left, reason)
}

// ceilMillis never lets a timer end before the wait it stands for.
func ceilMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// heartbeat tells Temporal that Deliver lives, from a goroutine of its own: a
// heartbeat may block for long while Temporal is away. It returns when the first
// one was answered, or has blocked for a while, or a drain began. A task that lay unread in a
// process that stood still is over, and its subscriber in other hands: Temporal
// refuses its heartbeat, which cancels ctx before the lease is taken from them.
func (a *Activities) heartbeat(ctx context.Context) (stop func()) {
	if !activity.IsActivity(ctx) {
		return func() {} // called without Temporal: nobody listens
	}
	done, first := make(chan struct{}), make(chan struct{})
	go func() {
		ticker := time.NewTicker(a.cfg.HeartbeatEvery)
		defer ticker.Stop()
		activity.RecordHeartbeat(ctx)
		close(first)
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case <-ticker.C:
				activity.RecordHeartbeat(ctx)
			}
		}
	}()
	select {
	case <-first:
	case <-time.After(a.cfg.HeartbeatEvery):
	case <-a.draining:
	case <-ctx.Done():
	}
	return func() { close(done) }
}

// bounded runs a statement with a time-out.
func bounded(ctx context.Context, statement func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return statement(ctx)
}
